"""The numbers of messages that a worker has taken lately: a message that comes again is refused."""

from __future__ import annotations

import threading
from collections import deque

MOST = 32
"""How many numbers are remembered for each host. A message that is older than all of them is refused too."""


class SeenNumbers:
    """The last numbers of each host. Threads may share it.

    It costs up to 2 kB of memory for each host, and no round trip. Each worker has its own. So a message can
    be taken once by every worker: what changes something looks into the database besides (keys.sql).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, deque[int]] = {}

    def is_new(self, host: str, number: int) -> bool:
        """Whether the number comes for the first time. It is remembered."""
        with self._lock:
            seen = self._seen.setdefault(host, deque(maxlen=MOST))
            if number in seen or (len(seen) == MOST and number < min(seen)):
                return False
            seen.append(number)
            return True

    def forget(self, host: str) -> None:
        """Forget a host that has no key any more."""
        with self._lock:
            self._seen.pop(host, None)
