"""Work that comes round again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from portclaim.common.errors import PortclaimError

LOG = logging.getLogger(__name__)


class Periodic(threading.Thread):
    """Has ``work`` called every ``pause`` seconds, and again at once while it answers True (there is more).

    What fails is done again by the next round.
    """

    def __init__(self, name: str, work: Callable[[], bool], pause: float) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._pause = pause
        self._woken = threading.Event()
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.is_set():
            self._woken.wait(self._pause)
            self._woken.clear()
            try:
                while not self._ending.is_set() and self._work():
                    continue
            except PortclaimError as error:
                LOG.warning("the %s goes on later: %s", self.name, error)
            except Exception:
                LOG.exception("a round of the %s failed; the next one comes in %s s", self.name, self._pause)

    def wake(self) -> None:
        """Have the next round begin now."""
        self._woken.set()

    def end(self) -> None:
        """Finish the work in hand and return."""
        self._ending.set()
        self.wake()
        if self.is_alive():
            self.join()
