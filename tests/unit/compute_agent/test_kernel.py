"""Writes to sysfs: another process makes them, refusals have a reason, and each has a time limit."""

import os
import threading
from pathlib import Path

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.kernel import Kernel, KernelBlocked, KernelRefused
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree

PF = PciAddress.parse("0000:01:00.0")
OTHER = PciAddress.parse("0000:02:00.0")


@pytest.fixture
def kernel(host: SimulatedTree, tmp_path: Path) -> Kernel:
    """Writes into a tree of plain files: a test can read what was written, and nothing else happens."""
    return Kernel(SysfsTree(host.root), timeout=10.0, vfio=tmp_path / "vfio")


def place(host: SimulatedTree, address: PciAddress) -> Path:
    return (host.root / "bus/pci/devices" / str(address)).resolve()


def test_the_number_of_vfs_is_written(host: SimulatedTree, kernel: Kernel) -> None:
    kernel.set_num_vfs(PF, 2)
    assert (place(host, PF) / "sriov_numvfs").read_text().startswith("2")


def test_a_refused_write_names_the_write_and_the_reason(host: SimulatedTree, kernel: Kernel) -> None:
    (place(host, PF) / "sriov_numvfs").unlink()
    with pytest.raises(
        KernelRefused, match=r"0000:01:00.0: the kernel refused '2' for .*sriov_numvfs: No such"
    ):
        kernel.set_num_vfs(PF, 2)


def test_a_driver_that_does_not_bind_the_device_is_an_error(host: SimulatedTree, kernel: Kernel) -> None:
    (place(host, PF) / "driver").unlink()
    (host.root / "bus/pci/drivers_probe").touch()
    with pytest.raises(DriverError, match="was not bound to vfio-pci: load that module"):
        kernel.bind_to_vfio(PF)
    assert (place(host, PF) / "driver_override").read_text().startswith("vfio-pci")
    assert (host.root / "bus/pci/drivers_probe").read_text().startswith(str(PF))


@pytest.mark.parametrize(
    ("methods", "is_reset"),
    [("flr pm bus", True), ("device_specific", True), ("pm bus", False), (None, False)],
)
def test_a_function_is_reset_only_if_it_can_be_reset_alone(
    host: SimulatedTree, kernel: Kernel, methods: str | None, is_reset: bool
) -> None:
    if methods is not None:
        (place(host, PF) / "reset_method").write_text(f"{methods}\n")
    (place(host, PF) / "reset").touch()
    assert kernel.reset(PF) is is_reset
    assert (place(host, PF) / "reset").read_text() == ("1" if is_reset else "")


def test_a_driver_override_is_told_apart_from_none(host: SimulatedTree, kernel: Kernel) -> None:
    assert kernel.override(PF) is None
    (place(host, PF) / "driver_override").write_text("vfio-pci\n")
    assert kernel.override(PF) == "vfio-pci"


class TestBlocked:
    """A pipe without a reader stands for a kernel that does not answer: opening it blocks."""

    @pytest.fixture
    def pipe(self, host: SimulatedTree) -> Path:
        pipe = place(host, PF) / "sriov_numvfs"
        pipe.unlink()
        os.mkfifo(pipe)
        return pipe

    @pytest.mark.usefixtures("pipe")
    def test_the_caller_gets_an_error_and_goes_on(self, host: SimulatedTree) -> None:
        impatient = Kernel(SysfsTree(host.root), timeout=0.2)
        with pytest.raises(KernelBlocked, match=r"has not answered a write to .*sriov_numvfs in 0\.2 s"):
            impatient.set_num_vfs(PF, 0)

    def test_writes_to_other_devices_still_work(self, pipe: Path, host: SimulatedTree) -> None:
        patient = Kernel(SysfsTree(host.root), timeout=60.0)
        blocked = threading.Thread(target=patient.set_num_vfs, args=(PF, 0))
        blocked.start()
        patient.set_num_vfs(OTHER, 1)
        assert (place(host, OTHER) / "sriov_numvfs").read_text().startswith("1")
        assert blocked.is_alive()
        pipe.read_text()
        blocked.join(60)
        assert not blocked.is_alive()
