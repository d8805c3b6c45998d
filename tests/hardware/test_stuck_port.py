"""The kernel removes a VF that a guest does not release, and waits: what that stops, and what not."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.uevents import wait_until
from tests.hardware.conftest import DEVICES, NVME, OTHER_PORT, PORT, VF, driver_of, run, vfs_of, write
from tests.hardware.guests import PATIENCE
from tests.hardware.vfio_user import open_device

MakeStep = Callable[..., Step]


@pytest.fixture
def driver(conf: cfg.ConfigOpts, tmp_path: Path) -> Iterator[VfioDriver]:
    driver = VfioDriver(conf, tmp_path)
    driver.start()
    yield driver
    for row in driver.handover.handed_over():
        driver.handover.take_back(row.address)
    driver.stop()


@pytest.fixture
def vf_of_other_port() -> Iterator[str]:
    write(OTHER_PORT, "sriov_numvfs", 2)
    run("udevadm", "settle")
    yield vfs_of(OTHER_PORT)[0]
    write(OTHER_PORT, "sriov_numvfs", 0)


def shown(driver: VfioDriver, scanner: Scanner) -> dict[str, str]:
    """What the agent would report as stopped, and why."""
    return {str(address): reason for address, reason in driver.stopped(scanner.scan()).items()}


def test_the_port_and_ports_with_vfs_are_stopped_with_the_reason_and_nothing_else(
    driver: VfioDriver, scanner: Scanner, make_step: MakeStep, vf_of_other_port: str
) -> None:
    step = make_step("attach", VF)
    driver.prepare(step, step.devices[0])
    path = DEVICES / PORT / "sriov_numvfs"
    with open_device(VF):
        assert shown(driver, scanner) == {}
        removal = subprocess.Popen(["sh", "-c", f"echo 0 > {path}"])  # an operator
        assert wait_until(lambda: bool(shown(driver, scanner)), PATIENCE)
        stopped = shown(driver, scanner)
        why = (
            f"the kernel is removing the VFs of {PORT}, and waits for instance {step.instance_id} of claim "
            f"{step.claim_id} to release {VF}: end it"
        )
        assert (stopped[PORT], stopped[VF]) == (why, why)
        for other in (OTHER_PORT, NVME):
            assert stopped[other].startswith("its VFs cannot be removed now: the kernel is removing those of")
        assert stopped.keys() <= {PORT, *vfs_of(PORT), VF, OTHER_PORT, NVME}
        whole = make_step("attach", OTHER_PORT)
        with pytest.raises(DriverError, match=f"the kernel is removing those of {PORT}, and waits for"):
            driver.prepare(whole, whole.devices[0])
        driver.detach(whole, whole.devices[0])  # as the agent does when a step fails
        slice_of_other = make_step("attach", vf_of_other_port)
        driver.prepare(slice_of_other, slice_of_other.devices[0])
        assert driver_of(vf_of_other_port) == "vfio-pci"
        driver.detach(slice_of_other, slice_of_other.devices[0])
        assert driver_of(vf_of_other_port) == "igbvf"
    removal.wait(PATIENCE)
    assert (vfs_of(PORT), shown(driver, scanner)) == ([], {})
    again = make_step("attach", OTHER_PORT)
    driver.prepare(again, again.devices[0])
    driver.detach(again, again.devices[0])
    assert (driver_of(OTHER_PORT), len(vfs_of(OTHER_PORT))) == ("igb", 2)
    driver.detach(step, step.devices[0])
    assert PciAddress.parse(VF) not in driver.problems()
