"""A thread that repeats its work at regular intervals."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from portclaim.common.errors import PortclaimError
from portclaim.common.metrics.catalogue import TASK_FAILURES, TASK_SECONDS

LOG = logging.getLogger(__name__)


class Periodic(threading.Thread):
    """Calls ``work`` every ``pause`` seconds, and again at once while it answers True (more work is left).

    Failed work is retried in the next round. :meth:`wake` starts a round at once, but not before
    ``least_pause`` seconds after the last round that it started.
    """

    def __init__(
        self, name: str, work: Callable[[], bool], pause: float, *, least_pause: float = 0.0
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._pause = pause
        self._least_pause = least_pause
        self._woken = threading.Event()
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.is_set():
            is_woken = self._woken.wait(self._pause)
            self._woken.clear()
            try:
                while not self._ending.is_set() and self._worked():
                    continue
            except PortclaimError as error:
                TASK_FAILURES.count(self.name)
                LOG.warning("the %s failed and will try again: %s", self.name, error)
            except Exception:
                TASK_FAILURES.count(self.name)
                LOG.exception("the %s failed and will try again in %s s", self.name, self._pause)
            if is_woken and self._least_pause:
                self._ending.wait(self._least_pause)

    def _worked(self) -> bool:
        with TASK_SECONDS.timed(self.name):
            return self._work()

    def wake(self) -> None:
        """Start the next round as soon as it may start."""
        self._woken.set()

    def end(self) -> None:
        """Finish the work that has begun, and return."""
        self._ending.set()
        self.wake()
        if self.is_alive():
            self.join()
