"""Kernel events: a burst counts as one change, lost events count as a change, and faults are logged."""

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from portclaim.services.compute_agent.uevents import SUBSYSTEMS, Uevents, Watcher, wait_until

PATIENCE = 60


class Monitor:
    """A fake of udev's socket. It returns the events that a test puts in, and raises the exceptions."""

    def __init__(self) -> None:
        self.subsystems: list[str] = []
        self._changed = threading.Condition()
        self._events: list[object] = []

    def filter_by(self, subsystem: str) -> None:
        self.subsystems.append(subsystem)

    def start(self) -> None:
        pass

    def put(self, *events: object) -> None:
        with self._changed:
            self._events.extend(events)
            self._changed.notify_all()

    def poll(self, timeout: float) -> object | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._events, timeout):
                return None
            event = self._events.pop(0)
        if isinstance(event, Exception):
            raise event
        return event


def event(*place: str) -> SimpleNamespace:
    """An event of the device at this address, below a root port."""
    return SimpleNamespace(device_path="/".join(["/devices/pci0000:00/0000:00:01.0", *place]))


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Monitor:
    monitor = Monitor()
    monkeypatch.setattr("pyudev.Context", lambda: None)
    monkeypatch.setattr("pyudev.Monitor.from_netlink", lambda *_args, **_kwargs: monitor)
    return monitor


@pytest.fixture
def changes(monitor: Monitor) -> Iterator[threading.Semaphore]:
    """Released once for every change that a watcher reports."""
    changes = threading.Semaphore(0)
    watcher = Watcher(Uevents(), lambda _named: changes.release())
    watcher.start()
    yield changes
    watcher.end()
    assert not watcher.is_alive()


def test_devices_and_network_interfaces_are_watched(monitor: Monitor) -> None:
    Uevents()
    assert monitor.subsystems == list(SUBSYSTEMS) == ["pci", "net"]


def test_a_burst_is_one_change(monitor: Monitor, changes: threading.Semaphore) -> None:
    monitor.put(*[event("0000:01:10.0")] * 300)
    assert changes.acquire(timeout=PATIENCE)
    monitor.put(event("0000:01:10.0"))
    assert changes.acquire(timeout=PATIENCE)
    assert not changes.acquire(blocking=False)


def named_by(monitor: Monitor, *events: object) -> frozenset[str] | None:
    uevents = Uevents()
    monitor.put(*events)
    uevents.settle()
    named = uevents.take()
    return None if named is None else frozenset(map(str, named))


def test_an_event_names_its_device(monitor: Monitor) -> None:
    events = event("0000:01:10.0"), event("0000:01:10.2", "net", "eth3"), event("10000:0a:1f.7")
    assert named_by(monitor, *events) == {"0000:01:10.0", "0000:01:10.2", "10000:0a:1f.7"}
    assert named_by(monitor) == frozenset()


def test_an_event_without_a_pci_device_is_ignored(monitor: Monitor, changes: threading.Semaphore) -> None:
    bridge = SimpleNamespace(device_path="/devices/virtual/net/br0")
    assert named_by(monitor, bridge) == frozenset()
    monitor.put(bridge)
    monitor.put(event("0000:01:10.0"))
    assert changes.acquire(timeout=PATIENCE)
    assert not changes.acquire(blocking=False)


def test_after_lost_events_the_changed_devices_are_unknown(monitor: Monitor) -> None:
    lost = OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
    assert named_by(monitor, event("0000:01:10.0"), lost, event("0000:01:10.0")) is None
    assert named_by(monitor, event("0000:01:10.0")) == {"0000:01:10.0"}


def test_lost_events_count_as_a_change(monitor: Monitor, changes: threading.Semaphore) -> None:
    monitor.put(OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)))
    assert changes.acquire(timeout=PATIENCE)


def test_a_watcher_that_fails_logs_an_error(monitor: Monitor, caplog: pytest.LogCaptureFixture) -> None:
    watcher = Watcher(Uevents(), lambda _named: None)
    monitor.put(OSError(errno.EBADF, os.strerror(errno.EBADF)))
    with caplog.at_level(logging.ERROR):
        watcher.start()
        watcher.join(PATIENCE)
    assert "only by the periodic scans" in caplog.text


def test_wait_until_returns_after_the_event_that_makes_its_condition_true(monitor: Monitor) -> None:
    asked: list[bool] = []

    def condition() -> bool:
        asked.append(True)
        monitor.put(event("0000:01:10.0"))
        return len(asked) == 3

    assert wait_until(condition, PATIENCE)
    assert len(asked) == 3


def never() -> bool:
    return False


@pytest.mark.parametrize(("condition", "outcome"), [(never, False), (lambda: True, True)])
@pytest.mark.usefixtures("monitor")
def test_wait_until_returns_when_its_time_is_over(condition: Callable[[], bool], outcome: bool) -> None:
    assert wait_until(condition, 0.0) is outcome
