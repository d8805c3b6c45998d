"""Cached scans of the host. The kernel's events say what must be read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.scanner import Scan, ScanError, Scanner

AUDIT_INTERVAL = 60.0


class CachedScanner:
    """Scans one host: completely at first, every ``AUDIT_INTERVAL`` seconds, and while no watcher runs.

    Otherwise only the devices given to :meth:`invalidate` are read again. Any thread may call
    :meth:`invalidate`; one thread calls :meth:`scan`.
    """

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._lock = threading.Lock()
        self._changed: set[PciAddress] = set()
        self._audit_at = 0.0
        self.is_watched: Callable[[], bool] = lambda: False

    def invalidate(self, changed: Iterable[PciAddress] | None) -> None:
        """These devices may have changed; None: any device may have."""
        with self._lock:
            if changed is None:
                self._audit_at = 0.0
            else:
                self._changed.update(changed)

    def scan(self) -> Scan:
        """What the host has now. Raises :class:`ScanError`."""
        with self._lock:
            changed, self._changed = self._changed, set()
            is_due = time.monotonic() >= self._audit_at
            if is_due:
                self._audit_at = time.monotonic() + AUDIT_INTERVAL
        try:
            if is_due or not self.is_watched():
                return self._scanner.scan()
            return self._scanner.rescan(changed)
        except (ScanError, OSError):
            self.invalidate(None)
            raise
