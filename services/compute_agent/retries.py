"""Try again what did not succeed with a device, for each device at its own growing intervals."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from portclaim.common.pci.address import PciAddress

LOG = logging.getLogger(__name__)

FIRST_RETRY, LAST_RETRY = 5.0, 300.0
"""Seconds before the first retry of a device, and the most between two."""


@dataclass(slots=True)
class _Try:
    due: float
    pause: float
    seen: object


class Retries(threading.Thread):
    """Calls ``attempt`` for each device that was added, until it answers True.

    ``look`` answers what the host shows of a device. An event of the kernel starts a retry at once if that
    has changed since the last try: a try causes events itself.
    """

    def __init__(
        self,
        attempt: Callable[[PciAddress], bool],
        look: Callable[[PciAddress], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="retries", daemon=True)
        self._attempt = attempt
        self._look = look
        self._clock = clock
        self._changed = threading.Condition()
        self._tries: dict[PciAddress, _Try] = {}
        self._is_ending = False

    def add(self, address: PciAddress, *, at_once: bool = False) -> None:
        """Try again after ``FIRST_RETRY`` seconds, or now. A device that was added keeps its pause."""
        seen = self._look(address)
        with self._changed:
            due = self._clock() + (0.0 if at_once else FIRST_RETRY)
            self._tries.setdefault(address, _Try(due, 0.0 if at_once else FIRST_RETRY, seen))
            self._changed.notify_all()

    def forget(self, address: PciAddress) -> None:
        """Nothing has to be tried any more."""
        with self._changed:
            self._tries.pop(address, None)

    def hurry(self, addresses: Iterable[PciAddress] | None) -> None:
        """The kernel has told of these devices: try those that have changed now. None: perhaps all."""
        with self._changed:
            named = list(self._tries if addresses is None else self._tries.keys() & set(addresses))
        changed = {address for address in named if self._look(address) != self._seen(address)}
        with self._changed:
            for address in changed & self._tries.keys():
                self._tries[address].due = self._clock()
                self._tries[address].pause = 0.0
            self._changed.notify_all()

    def run_due(self) -> None:
        """Try what is due."""
        with self._changed:
            due = [address for address, each in self._tries.items() if each.due <= self._clock()]
        for address in due:
            try:
                is_done = self._attempt(address)
            except Exception:
                LOG.exception("%s is tried again", address)
                is_done = False
            seen = self._look(address)
            with self._changed:
                known = self._tries.get(address)
                if is_done:
                    self._tries.pop(address, None)
                elif known is not None:
                    pause = min(max(known.pause * 2, FIRST_RETRY), LAST_RETRY)
                    self._tries[address] = _Try(self._clock() + pause, pause, seen)

    def run(self) -> None:
        """Try until :meth:`end`."""
        while not self._is_ending:
            self.run_due()
            with self._changed:
                left = min((each.due - self._clock() for each in self._tries.values()), default=None)
                if not self._is_ending and (left is None or left > 0):
                    self._changed.wait(left)

    def end(self) -> None:
        """Stop trying."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        if self.is_alive():
            self.join()

    def _seen(self, address: PciAddress) -> object:
        with self._changed:
            known = self._tries.get(address)
        return None if known is None else known.seen
