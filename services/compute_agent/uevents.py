"""The kernel's own word that a device came, went or changed (udev's netlink socket, by pyudev)."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable

import pyudev

LOG = logging.getLogger(__name__)

SUBSYSTEMS = ("pci", "net")
QUIET = 0.1  # seconds without an event that end a burst: 64 VFs are some hundred events
LONGEST_BURST = 0.5
_LOOK_ANYWAY = 1.0  # seconds: links change a moment after their event, and not all have one


class Uevents:
    """A subscription that lasts as long as this object. Not to be shared between threads."""

    def __init__(self) -> None:
        """Raises OSError or ImportError where there is no such socket or no libudev."""
        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        for subsystem in SUBSYSTEMS:
            self._monitor.filter_by(subsystem)
        self._monitor.start()

    def wait(self, timeout: float) -> bool:
        """Did anything happen before ``timeout`` seconds were over? Lost events count as one."""
        try:
            return self._monitor.poll(max(timeout, 0.0)) is not None
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            LOG.warning("events of the kernel were lost: looking at everything")
            return True

    def settle(self) -> None:
        """Let a burst end."""
        end = time.monotonic() + LONGEST_BURST
        while time.monotonic() < end and self.wait(QUIET):
            pass


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Did the condition come true in ``timeout`` seconds? Asked at each event, and now and then anyway."""
    end = time.monotonic() + timeout
    events = Uevents()
    while not condition():
        left = end - time.monotonic()
        if left <= 0:
            return False
        events.wait(min(left, _LOOK_ANYWAY))
    return True


class Watcher(threading.Thread):
    """Calls ``changed`` once after each burst of events, until :meth:`end`."""

    def __init__(self, events: Uevents, changed: Callable[[], None]) -> None:
        super().__init__(name="watcher", daemon=True)
        self._events = events
        self._changed = changed
        self._ending = threading.Event()

    def run(self) -> None:
        """Watch; a fault ends it loudly, and the periodic look at the host remains."""
        try:
            while not self._ending.is_set():
                if self._events.wait(_LOOK_ANYWAY):
                    self._events.settle()
                    self._changed()
        except Exception:
            LOG.exception("changes of this host are seen only periodically from now on")

    def end(self) -> None:
        """Watch no more."""
        self._ending.set()
        self.join()
