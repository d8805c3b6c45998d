"""What else happens to a host while claims are live on it: cards, other tools, names and clocks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from portclaim.services.compute_agent.uevents import wait_until
from tests.hardware.conftest import DEVICES, NUM_VFS, OTHER_PORT, PORT, driver_of, run, vfs_of, write
from tests.hardware.guests import PATIENCE
from tests.hardware.test_fleet import Fleet, agent, conf, fleet, host
from tests.hardware.test_lost_devices import SOON, shows, told

__all__ = ["agent", "conf", "fleet", "host", "told"]  # fixtures
pytestmark = pytest.mark.usefixtures("agent")


def test_the_pf_of_a_claimed_vf_is_removed_and_the_bus_is_scanned_again(
    fleet: Fleet, told: Callable[[str, float], None]
) -> None:
    claim = fleet.wait_for(fleet.claim("nic-vf"), "allocated")
    vf = claim.devices[0].address
    write(PORT, "remove", 1)
    try:
        assert wait_until(lambda: shows(fleet, vf, f"its PF {PORT} was removed from its bus"), SOON)
    finally:
        (DEVICES.parent / "rescan").write_text("1")
    assert wait_until(lambda: driver_of(PORT) == "igb", PATIENCE)
    assert wait_until(lambda: shows(fleet, vf, f"its PF {PORT} has 0 VFs now"), SOON)
    since = time.monotonic()
    write(PORT, "sriov_numvfs", NUM_VFS[PORT])
    assert wait_until(lambda: driver_of(vf) == "vfio-pci", SOON)
    told("a VF whose PF came back is on vfio-pci after", since)
    assert wait_until(lambda: shows(fleet, vf, None), SOON)
    fleet.release(claim)
    fleet.wait_for(claim, "released")
    assert (driver_of(vf), len(vfs_of(PORT))) == ("igbvf", NUM_VFS[PORT])
    assert wait_until(lambda: set(fleet.status(PORT).values()) == {"available"}, SOON)


def bind(address: str, driver: str, override: str) -> None:
    """As a tool does it."""
    write(address, "driver_override", override)
    (DEVICES / address / "driver/unbind").write_text(address)
    (DEVICES.parent / "drivers_probe").write_text(address)
    assert wait_until(lambda: driver_of(address) == driver, PATIENCE)


def test_a_free_pf_that_another_tool_has_bound_to_vfio_is_offered_and_returns_to_vfio(fleet: Fleet) -> None:
    bind(OTHER_PORT, "vfio-pci", "vfio-pci")
    try:
        assert wait_until(lambda: fleet.status(OTHER_PORT) == {OTHER_PORT: "available"}, SOON)
        others = fleet.wait_for(fleet.claim("nic-pf"), "allocated")
        one = fleet.wait_for(fleet.claim("nic-pf"), "allocated")
        assert {others.devices[0].address, one.devices[0].address} == {PORT, OTHER_PORT}
        for claim in (others, one):
            fleet.release(claim)
            fleet.wait_for(claim, "released")
        assert (driver_of(PORT), driver_of(OTHER_PORT)) == ("igb", "vfio-pci")
    finally:
        bind(OTHER_PORT, "igb", "\n")


def test_an_interface_that_is_renamed_changes_nothing_for_claims(fleet: Fleet) -> None:
    claim = fleet.wait_for(fleet.claim("nic-vf"), "allocated")
    run("ip", "link", "set", "enp1s0", "down")
    run("ip", "link", "set", "enp1s0", "name", "uplink")
    try:
        whole = fleet.wait_for(fleet.claim("nic-pf"), "allocated")
        assert whole.devices[0].address == OTHER_PORT
        fleet.release(claim)
        fleet.wait_for(claim, "released")
        assert driver_of(claim.devices[0].address) == "igbvf"
        fleet.release(whole)
        fleet.wait_for(whole, "released")
        assert driver_of(OTHER_PORT) == "igb"
    finally:
        run("ip", "link", "set", "uplink", "name", "enp1s0")


def test_vfs_that_get_their_driver_one_by_one_are_available_at_the_end(
    fleet: Fleet, told: Callable[[str, float], None]
) -> None:
    """The kernel makes all VFs of this card at once. Their drivers come one after another, in a minute."""
    write(OTHER_PORT, "sriov_drivers_autoprobe", 0)
    try:
        write(OTHER_PORT, "sriov_numvfs", 4)
        for vf in vfs_of(OTHER_PORT):
            time.sleep(15)
            write(vf, "driver_override", "igbvf")  # without it, the kernel binds nothing now
            (DEVICES.parent / "drivers/igbvf/bind").write_text(vf)
            write(vf, "driver_override", "\n")
        since = time.monotonic()
        free = dict.fromkeys([OTHER_PORT, *vfs_of(OTHER_PORT)], "available")
        assert wait_until(lambda: fleet.status(OTHER_PORT) == free, SOON)
        told("VFs whose drivers came one by one are available after", since)
    finally:
        write(OTHER_PORT, "sriov_drivers_autoprobe", 1)
        write(OTHER_PORT, "sriov_numvfs", 0)


@contextmanager
def clock_off_by(seconds: float) -> Iterator[None]:
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.time() - seconds)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_an_hour_off_changes_nothing_for_claims(fleet: Fleet, hours: int) -> None:
    with clock_off_by(hours * 3600):
        claim = fleet.wait_for(fleet.claim("nic-vf"), "allocated")
        vf = claim.devices[0].address
        assert driver_of(vf) == "vfio-pci"
    assert shows(fleet, vf, None)
    with clock_off_by(-hours * 3600):
        fleet.release(claim)
        fleet.wait_for(claim, "released")
    assert driver_of(vf) == "igbvf"
    assert set(fleet.status(PORT).values()) == {"available"}
