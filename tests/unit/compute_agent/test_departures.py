"""Who waits for a device to leave a guest is woken by libvirt's event, and not by a clock."""

import threading
from collections.abc import Iterator

import pytest

from portclaim.services.compute_agent.drivers import libvirt_events
from portclaim.services.compute_agent.drivers.libvirt_events import Departures, DomainEvents
from tests.unit.compute_agent import libvirtd as libvirt
from tests.unit.compute_agent.libvirtd import Domain, Libvirtd

LONG = 60.0  # seconds after which a test has failed
NEVER = 3600.0


class Guest:
    """It has a device. ``looked``: somebody has seen that."""

    def __init__(self) -> None:
        self.has_device = True
        self.looked = threading.Event()

    def is_out(self) -> bool:
        is_out = not self.has_device
        self.looked.set()
        return is_out


@pytest.fixture
def departures(monkeypatch: pytest.MonkeyPatch) -> Departures:
    monkeypatch.setattr(libvirt_events, "_CHECK_ANYWAY", NEVER)
    return Departures()


@pytest.fixture
def daemon(departures: Departures, monkeypatch: pytest.MonkeyPatch) -> Iterator[Libvirtd]:
    """Its events reach ``departures``."""
    daemon, connected = Libvirtd(), threading.Event()
    monkeypatch.setattr(libvirt, "open", daemon.open, raising=False)
    events = DomainEvents(libvirt, "test:///", lambda _uuid: connected.set(), departures.tell)
    events.start()
    assert connected.wait(LONG)
    yield daemon
    events.end()


def test_an_event_of_libvirt_wakes(departures: Departures, daemon: Libvirtd) -> None:
    guest, answers = Guest(), []
    waiting = threading.Thread(target=lambda: answers.append(departures.wait_until(guest.is_out, NEVER)))
    waiting.start()
    assert guest.looked.wait(LONG)
    guest.has_device = False
    daemon.tell(libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, Domain("a-guest"), "hostdev0")
    waiting.join(LONG)
    assert answers == [True]


def test_what_is_true_already_needs_no_event(departures: Departures) -> None:
    assert departures.wait_until(lambda: True, 0.0)


def test_it_ends_when_the_time_is_up(departures: Departures) -> None:
    assert not departures.wait_until(lambda: False, 0.0)
