"""A real fleet: an operator takes the VF of a paused guest of libvirt. What is offered, and what not."""

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from oslo_config import cfg

from portclaim.common.errors import ClaimRefused
from portclaim.services.compute_agent.agent import ComputeAgent
from portclaim.services.compute_agent.drivers.libvirt import libvirt
from portclaim.services.compute_agent.uevents import wait_until
from tests.hardware.conftest import DEVICES, OTHER_PORT, PORT, driver_of, run, vfs_of, write
from tests.hardware.guests import PATIENCE, Guest
from tests.hardware.test_fleet import Fleet, conf, fleet, host
from tests.hardware.test_lost_devices import told

__all__ = ["conf", "fleet", "host", "told"]  # fixtures
pytestmark = [
    pytest.mark.skipif(libvirt is None, reason="no libvirt"),
    pytest.mark.parametrize("conf", ["libvirt"], indirect=True),
]


@pytest.fixture
def agent(conf: cfg.ConfigOpts, connection: object) -> Iterator[ComputeAgent]:
    """It reports often: the kernel sends no event of a port that is stuck."""
    conf.set_override("report_interval", 2.0, "compute_agent")
    agent = ComputeAgent(conf)
    agent.start()
    yield agent
    agent.stop()
    conf.clear_override("report_interval", "compute_agent")


@pytest.fixture
def vfs_of_other_port() -> Iterator[list[str]]:
    write(OTHER_PORT, "sriov_numvfs", 2)
    run("udevadm", "settle")
    yield vfs_of(OTHER_PORT)
    write(OTHER_PORT, "sriov_numvfs", 0)


@pytest.mark.usefixtures("agent")
def test_a_vf_of_a_paused_guest_is_taken_away(
    fleet: Fleet,
    make_guest: Callable[..., Guest],
    vfs_of_other_port: list[str],
    told: Callable[[str, float], None],
) -> None:
    paused = make_guest("paused", running=False)
    other = make_guest("shut-off", running=False, started=False)
    claim = fleet.wait_for(fleet.claim("nic-vf", paused.uuid), "allocated")
    vf = claim.devices[0].address
    port, free_port = (PORT, OTHER_PORT) if vf in vfs_of(PORT) else (OTHER_PORT, PORT)
    siblings = [each for each in vfs_of(port) if each != vf]
    free_vfs = vfs_of(free_port)
    removal = subprocess.Popen(["sh", "-c", f"echo 0 > {DEVICES / port / 'sriov_numvfs'}"])  # an operator
    since = time.monotonic()
    try:
        why = (
            f"the kernel is removing the VFs of {port}, and waits for instance {paused.uuid} of claim "
            f"{claim.claim_id} to release {vf}: end it"
        )
        assert wait_until(lambda: why in (fleet.reason(vf) or ""), PATIENCE), fleet.reason(vf)
        told("the VF that is held is shown as stuck after", since)
        assert why in (fleet.reason(port) or "")
        shown = fleet.status(port)
        assert {shown.get(each, "unavailable") for each in [port, *siblings]} == {"unavailable"}
        why_other = f"its VFs cannot be removed now: the kernel is removing those of {port}"
        assert why_other in (fleet.reason(free_port) or "")
        assert fleet.status(free_port) == {free_port: "unavailable"} | dict.fromkeys(free_vfs, "available")
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-pf", other.uuid)
        slice_of_other = fleet.wait_for(fleet.claim("nic-vf", other.uuid), "allocated")
        assert slice_of_other.devices[0].address in free_vfs
        fleet.release(slice_of_other)
        fleet.wait_for(slice_of_other, "released")
        assert removal.poll() is None
    finally:
        paused.domain.destroy()
    assert wait_until(lambda: removal.poll() == 0, PATIENCE)
    since = time.monotonic()
    assert wait_until(lambda: fleet.status(free_port)[free_port] == "available", PATIENCE)
    told("the other port is available again after", since)
    fleet.release(claim)
    fleet.wait_for(claim, "released")
    assert wait_until(lambda: fleet.status(port) == {port: "available"}, PATIENCE), fleet.status(port)
    whole = [fleet.wait_for(fleet.claim("nic-pf", other.uuid), "allocated") for _ in range(2)]
    assert {each.devices[0].address for each in whole} == {port, free_port}
    for each in whole:
        fleet.release(each)
        fleet.wait_for(each, "released")
    assert [driver_of(each) for each in (port, free_port)] == ["igb", "igb"]
    assert vfs_of(free_port) == free_vfs
