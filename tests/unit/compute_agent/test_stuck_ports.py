"""A port that is stuck in the kernel stops other ports from losing their VFs, and nothing else."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent import kernel as kernel_module
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.handover_record import HandedOver
from portclaim.services.compute_agent.kernel import Kernel
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.stuck_ports import StuckPorts
from portclaim.services.compute_agent.sysfs import SysfsTree

PF, VF, OTHER_PF = (PciAddress.parse(text) for text in ("0000:01:00.0", "0000:01:10.0", "0000:02:00.0"))
ROW = HandedOver(VF, PF, UUID(int=1), UUID(int=2), "iavf", None, 0)


@pytest.fixture
def kernel(host: SimulatedTree) -> Kernel:
    return Kernel(SysfsTree(host.root), timeout=10.0)


@pytest.fixture
def ports(kernel: Kernel) -> StuckPorts:
    return StuckPorts(kernel)


@pytest.fixture
def stuck(host: SimulatedTree, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The kernel removes VF, which a guest has. A pipe without a writer stands for a read that waits."""
    monkeypatch.setattr(kernel_module, "_ANSWER_WITHIN", 0.2)
    (place(host, VF) / "physfn").unlink()
    (place(host, PF) / "virtfn0").unlink()
    attribute = place(host, PF) / "sriov_numvfs"
    attribute.unlink()
    os.mkfifo(attribute)
    yield attribute
    if attribute.is_fifo():
        go_on(host, attribute)


def go_on(host: SimulatedTree, attribute: Path) -> None:
    """The guest has ended: the kernel answers all who wait, and the VFs are gone."""
    descriptor = os.open(attribute, os.O_RDWR | os.O_NONBLOCK)
    attribute.rename(attribute.with_name("answered"))
    attribute.write_text("4\n")
    os.close(descriptor)
    host.set_num_vfs(PF, 0)


def place(host: SimulatedTree, address: PciAddress) -> Path:
    return (host.root / "bus/pci/devices" / str(address)).resolve()


def addresses(host: SimulatedTree, port: PciAddress) -> set[PciAddress]:
    scan = Scanner(SysfsTree(host.root)).scan()
    return {device.address for device in scan.devices if port in {device.address, device.parent}}


@pytest.mark.usefixtures("stuck")
def test_it_and_its_vfs_and_other_ports_with_vfs_are_stopped_and_say_by_whom(
    host: SimulatedTree, ports: StuckPorts, scanner: Scanner
) -> None:
    problems = ports.problems(scanner.scan(), [ROW])
    assert problems.keys() == addresses(host, PF) | {OTHER_PF}
    whom = f"instance {ROW.instance_id} of claim {ROW.claim_id} to release {VF}: end it"
    assert problems[VF] == f"the kernel is removing the VFs of {PF}, and waits for {whom}"
    assert problems[OTHER_PF] == (
        f"its VFs cannot be removed now: the kernel is removing those of {PF}, and waits for {whom}"
    )


@pytest.mark.usefixtures("stuck")
def test_a_port_without_vfs_is_not_stopped(host: SimulatedTree, ports: StuckPorts, scanner: Scanner) -> None:
    host.set_num_vfs(OTHER_PF, 0)
    assert ports.problems(scanner.scan(), [ROW]).keys() == addresses(host, PF)


@pytest.mark.usefixtures("stuck")
def test_a_guest_that_nobody_knows_is_not_named(ports: StuckPorts, scanner: Scanner) -> None:
    assert f"a guest or another program to release {VF}" in ports.problems(scanner.scan(), [])[PF]


@pytest.mark.usefixtures("stuck")
def test_no_other_port_is_asked_to_remove_its_vfs(ports: StuckPorts, scanner: Scanner) -> None:
    """The kernel would remove them when the guest ends, and then nobody wants that any more."""
    with pytest.raises(DriverError, match=f"{OTHER_PF}: its VFs cannot be removed now"):
        ports.check(OTHER_PF, scanner.scan(), [ROW])


def test_when_the_guest_has_ended_all_goes_on(
    host: SimulatedTree, ports: StuckPorts, scanner: Scanner, stuck: Path, kernel: Kernel
) -> None:
    ports.problems(scanner.scan(), [ROW])
    assert not kernel.answers_for(PF)
    go_on(host, stuck)
    kernel._readers[PF].wait(60)
    ports.check(OTHER_PF, scanner.scan(), [])
    assert ports.problems(scanner.scan(), []) == {}


def test_a_port_that_is_only_half_linked_for_a_moment_stops_nothing(
    host: SimulatedTree, ports: StuckPorts, scanner: Scanner
) -> None:
    (place(host, VF) / "physfn").unlink()
    scan = scanner.scan()
    assert VF in scan.problems
    assert ports.problems(scan, [ROW]) == {}
