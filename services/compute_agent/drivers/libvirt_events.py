"""What happens to the domains of a libvirtd, as its events tell it."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

LOG = logging.getLogger(__name__)

_RECONNECT_AFTER = 2.0  # seconds
_CHECK_ANYWAY = 1.0  # seconds
_KEEPALIVE = 5, 3  # seconds between two messages, and how many libvirtd may leave unanswered


class Departures:
    """Devices that leave guests: wakes those who wait for one. Threads may share one."""

    def __init__(self) -> None:
        self._told = threading.Condition()
        self._count = 0

    def tell(self) -> None:
        """A device has left a guest."""
        with self._told:
            self._count += 1
            self._told.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Did the condition become true in ``timeout`` seconds? It is tested at each :meth:`tell`, and anyway
        every second: events may be lost with the connection.
        """
        end = time.monotonic() + timeout
        while True:
            with self._told:
                seen = self._count
            if condition():
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            with self._told:
                if self._count == seen:
                    self._told.wait(min(left, _CHECK_ANYWAY))


class DomainEvents(threading.Thread):
    """Calls ``changed`` with the UUID of a domain that is defined, runs, stops, or gets a device.

    With None after every connection: what happened before it is not told. It connects again when libvirtd was
    restarted. Calls ``left`` when a device has left a domain. Both must return soon.
    """

    def __init__(
        self, libvirt: Any, uri: str, changed: Callable[[UUID | None], None], left: Callable[[], None]
    ) -> None:
        super().__init__(name="libvirt events", daemon=True)
        self._libvirt = libvirt
        self._uri = uri
        self._changed = changed
        self._left = left
        self._lost = threading.Event()
        self._ending = threading.Event()
        start_event_loop(libvirt)

    def run(self) -> None:
        while not self._ending.is_set():
            self._lost.clear()
            try:
                connection = self._connect()
            except self._libvirt.libvirtError as error:
                LOG.warning("libvirt: no events of domains, connecting again: %s", error)
                self._ending.wait(_RECONNECT_AFTER)
                continue
            self._changed(None)
            self._lost.wait()
            try:
                connection.close()
            except self._libvirt.libvirtError as error:
                LOG.info("libvirt: %s", error)

    def end(self) -> None:
        """Stop."""
        self._ending.set()
        self._lost.set()
        self.join()

    def _connect(self) -> Any:
        connection = self._libvirt.open(self._uri)
        for event in (
            self._libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            self._libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
            self._libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
        ):
            connection.domainEventRegisterAny(None, event, self._heard, event)
        connection.registerCloseCallback(self._closed, None)
        connection.setKeepAlive(*_KEEPALIVE)
        return connection

    def _heard(self, _connection: Any, domain: Any, what: Any, *details: Any) -> None:
        if details[-1] == self._libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED:
            self._left()
            return
        news = {
            self._libvirt.VIR_DOMAIN_EVENT_DEFINED,
            self._libvirt.VIR_DOMAIN_EVENT_STARTED,
            self._libvirt.VIR_DOMAIN_EVENT_RESUMED,  # also at the end of a live migration
            self._libvirt.VIR_DOMAIN_EVENT_STOPPED,  # perhaps because a migration to this host was aborted
        }
        is_device = details[-1] == self._libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED
        if is_device or what in news:
            self._changed(UUID(domain.UUIDString()))

    def _closed(self, _connection: Any, _reason: int, _opaque: object) -> None:
        self._lost.set()


@functools.cache
def start_event_loop(libvirt: Any) -> None:
    """Start libvirt's event loop, once for each process, before the first connection that uses it."""
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_loop_for_ever, args=(libvirt,), name="libvirt loop", daemon=True).start()


def _loop_for_ever(libvirt: Any) -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
