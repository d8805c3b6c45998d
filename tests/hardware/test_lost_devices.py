"""A real fleet sees what the kernel, an operator or a power loss does to the device of a live claim."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from oslo_config import cfg

from portclaim.common.events.schema import Event, EventFilter
from portclaim.common.events.stream import EventStream
from portclaim.services.compute_agent.agent import ComputeAgent
from portclaim.services.compute_agent.drivers.libvirt import libvirt
from portclaim.services.compute_agent.uevents import wait_until
from tests.hardware.conftest import DEVICES, NUM_VFS, PORT, driver_of, run, vfs_of, write
from tests.hardware.guests import PATIENCE, Guest
from tests.hardware.test_fleet import Fleet, agent, conf, fleet, host

__all__ = ["agent", "conf", "fleet", "host"]  # fixtures

SOON = PATIENCE  # neither reports nor repairs come by the clock then
needs_libvirt = pytest.mark.skipif(libvirt is None, reason="no libvirt")


@pytest.fixture(autouse=True)
def seldom(conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the clock of reports nor that of repairs shows what comes soon."""
    monkeypatch.setattr("portclaim.services.compute_agent.reporter.REPAIR_INTERVAL", 3600.0)
    conf.set_override("report_interval", 600.0, "compute_agent")
    yield
    conf.clear_override("report_interval", "compute_agent")


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[str, float], None]:
    """Says how long something took: an emulator's clock is no goal."""

    def told(what: str, since: float) -> None:
        with capsys.disabled():
            print(f"\n{what}: {time.monotonic() - since:.1f} s")  # noqa: T201 - a figure that the test is for

    return told


@contextmanager
def events_of(conf: cfg.ConfigOpts) -> Iterator[list[Event]]:
    """The events of this host's devices, as a caller gets them."""
    heard: list[Event] = []
    stream = EventStream(conf, EventFilter(kinds=("device",), hosts=(conf.host,)))
    started = threading.Event()

    def follow() -> None:
        with stream:
            stream.start()
            started.set()
            for event in stream:
                heard.append(event)  # noqa: PERF402 - the test reads it meanwhile

    following = threading.Thread(target=follow)
    following.start()
    assert started.wait(PATIENCE)
    yield heard
    stream.end()
    following.join(PATIENCE)


def shows(fleet: Fleet, address: str, text: str | None) -> bool:
    """Does the fleet give this as (a part of) the reason of a held device? None: nothing but its holder."""
    reason = fleet.reason(address) or ""
    return text in reason if text is not None else reason.startswith("held by") and ";" not in reason


@pytest.mark.usefixtures("agent")
def test_a_vf_that_was_made_anew_is_handed_over_again(
    fleet: Fleet, told: Callable[[str, float], None]
) -> None:
    claim = fleet.wait_for(fleet.claim("nic-vf"), "allocated")
    vf = claim.devices[0].address
    run("modprobe", "-r", "igb")
    run("modprobe", "igb")
    assert wait_until(lambda: driver_of(PORT) == "igb", PATIENCE)
    since = time.monotonic()
    write(PORT, "sriov_numvfs", NUM_VFS[PORT])
    assert wait_until(lambda: driver_of(vf) == "vfio-pci", SOON)
    told("a VF that was made anew is on vfio-pci after", since)
    assert wait_until(lambda: shows(fleet, vf, None), SOON)
    assert [driver_of(other) for other in vfs_of(PORT) if other != vf] == ["igbvf"] * (NUM_VFS[PORT] - 1)
    fleet.release(claim)
    fleet.wait_for(claim, "released")
    assert driver_of(vf) == "igbvf"


@pytest.mark.usefixtures("agent")
def test_a_port_that_was_removed_while_it_was_lent_is_restored_when_the_bus_is_scanned_again(
    fleet: Fleet, told: Callable[[str, float], None]
) -> None:
    claim = fleet.wait_for(fleet.claim("nic-pf"), "allocated")
    port = claim.devices[0].address
    write(port, "remove", 1)
    assert wait_until(lambda: shows(fleet, port, "was removed from its bus"), SOON)
    fleet.release(claim)
    fleet.wait_for(claim, "released")
    time.sleep(20)  # the pause before the next try has grown meanwhile
    since = time.monotonic()
    (DEVICES.parent / "rescan").write_text("1")
    back = {port: "available"} | dict.fromkeys(vfs_before(port), "available")
    assert wait_until(lambda: fleet.status(port) == back, SOON)
    told("a port that was removed and comes back is available with its VFs after", since)


def vfs_before(port: str) -> list[str]:
    return [f"0000:{port[5:7]}:{16 + n // 4:02x}.{n % 4 * 2}" for n in range(NUM_VFS[port])]


@needs_libvirt
@pytest.mark.parametrize("conf", ["libvirt"], indirect=True)
def test_vfs_that_the_kernel_takes_from_a_running_guest_are_shown_and_given_again(  # noqa: PLR0917 - fixtures
    connection: object,
    conf: cfg.ConfigOpts,
    fleet: Fleet,
    agent: ComputeAgent,
    guest: Guest,
    told: Callable[[str, float], None],
) -> None:
    claim = fleet.wait_for(fleet.claim("nic-vf", guest.uuid), "allocated")
    vf = claim.devices[0].address
    assert guest.says("GUEST sees 1")
    with events_of(conf) as events:
        since = time.monotonic()
        write(PORT, "sriov_numvfs", 0)
        why = f"{vf} is gone from this host: its PF {PORT} has 0 VFs now"
        assert wait_until(lambda: shows(fleet, vf, why), SOON)
        told("a VF that the kernel took from a guest is shown after", since)
        assert wait_until(lambda: any(event.cause.startswith(why) for event in events), SOON)
        told("and published as an event after", since)
    write(PORT, "sriov_numvfs", NUM_VFS[PORT])
    assert wait_until(lambda: shows(fleet, vf, None), PATIENCE)
    assert guest.says("GUEST sees 1")
    fleet.release(claim)
    fleet.wait_for(claim, "released")
    assert (driver_of(vf), guest.says("GUEST sees 0")) == ("igbvf", True)
