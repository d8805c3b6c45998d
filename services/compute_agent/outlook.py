"""What the host has, kept true by the kernel's events: what they do not name is not read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.scanner import Scan, ScanError, Scanner

AUDIT_INTERVAL = 60.0


class Outlook:
    """Scans one host: wholly at first, every ``AUDIT_INTERVAL`` seconds, and while nobody watches it.

    In between only what :meth:`note` was told of is read again. May be told from any thread, and is
    to be asked from one.
    """

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._lock = threading.Lock()
        self._changed: set[PciAddress] = set()
        self._audit_at = 0.0
        self.is_watched: Callable[[], bool] = lambda: False

    def note(self, changed: Iterable[PciAddress] | None) -> None:
        """These devices are not, or may not be, as they were; None: nobody knows which are."""
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
            self.note(None)
            raise
