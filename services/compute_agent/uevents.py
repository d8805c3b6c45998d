"""The kernel's events for devices that come, go or change (udev's netlink socket, through pyudev)."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pyudev

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.errors import InvalidPciAddress

LOG = logging.getLogger(__name__)

SUBSYSTEMS = ("pci", "net")
QUIET = 0.1  # seconds without an event that end a burst: 64 VFs are some hundred events
LONGEST_BURST = 0.5
_CHECK_ANYWAY = 1.0  # seconds: links change a moment after their event, and some have no event


class Uevents:
    """A subscription that lasts as long as this object. For one thread.

    An event of a device, or of its network interface, names the device by its path below ``/sys/devices``
    (kernel ABI). An event of a bridge or a bond names no device.
    """

    def __init__(self) -> None:
        """Raises OSError or ImportError if there is no such socket or no libudev."""
        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        for subsystem in SUBSYSTEMS:
            self._monitor.filter_by(subsystem)
        self._monitor.start()
        self._named: set[PciAddress] = set()
        self._were_lost = False

    def wait(self, timeout: float) -> bool:
        """Did an event come within ``timeout`` seconds? Lost events count as one."""
        try:
            event = self._monitor.poll(max(timeout, 0.0))
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            LOG.warning("events of the kernel were lost: scanning the whole host")
            self._were_lost = True
            return True
        if event is None:
            return False
        self._named.update(_device_at(event.device_path))
        return True

    def take(self) -> frozenset[PciAddress] | None:
        """The devices that events have named since the last call; None if events were lost."""
        named = None if self._were_lost else frozenset(self._named)
        self._named.clear()
        self._were_lost = False
        return named

    def settle(self) -> None:
        """Wait for the end of a burst of events."""
        end = time.monotonic() + LONGEST_BURST
        while time.monotonic() < end and self.wait(QUIET):
            pass


def _device_at(place: str) -> Iterator[PciAddress]:
    for part in reversed(place.split("/")):
        try:
            yield PciAddress.parse(part)
        except InvalidPciAddress:
            continue
        return


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Did the condition become true in ``timeout`` seconds? It is tested at each event, and every second."""
    end = time.monotonic() + timeout
    events = Uevents()
    while not condition():
        left = end - time.monotonic()
        if left <= 0:
            return False
        events.wait(min(left, _CHECK_ANYWAY))
    return True


class Watcher(threading.Thread):
    """Calls ``changed`` once after each burst of events, until :meth:`end`.

    Its argument is the devices that the events named, or None if events were lost.
    """

    def __init__(self, events: Uevents, changed: Callable[[frozenset[PciAddress] | None], None]) -> None:
        super().__init__(name="watcher", daemon=True)
        self._events = events
        self._changed = changed
        self._ending = threading.Event()

    def run(self) -> None:
        """Watch. An error ends the thread with a message in the log; the periodic scans go on."""
        try:
            while not self._ending.is_set():
                if self._events.wait(_CHECK_ANYWAY):
                    self._events.settle()
                    named = self._events.take()
                    if named is None or named:
                        self._changed(named)
        except Exception:
            LOG.exception("from now on, changes of this host are seen only by the periodic scans")

    def end(self) -> None:
        """Stop watching."""
        self._ending.set()
        self.join()
