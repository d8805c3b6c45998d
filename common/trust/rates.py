"""How many messages a host may send, and how many of them a worker handles at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable

_BURST = 10.0  # seconds of messages that may come at once


class HostRates:
    """A bucket of messages for each host, filled by time, and the number of its messages in hand."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}
        self._in_hand: dict[Hashable, int] = {}

    def may_send(self, host: str, cost: int = 1) -> bool:
        """Take ``cost`` messages out of the bucket. False: it is empty."""
        now = time.monotonic()
        with self._lock:
            left, since = self._left.get(host, (self._rate * _BURST, now))
            left = min(left + (now - since) * self._rate, self._rate * _BURST)
            self._left[host] = (max(left - cost, 0.0) if left >= 1 else left, now)
            return left >= 1

    def is_used_up(self, host: str) -> bool:
        """Whether the bucket is empty. Looking takes nothing out."""
        now = time.monotonic()
        with self._lock:
            left, since = self._left.get(host, (self._rate * _BURST, now))
            return left + (now - since) * self._rate < 1

    def begin(self, kind: Hashable, at_once: int) -> bool:
        """Begin to handle a message of this kind. False: too many of it are in hand."""
        with self._lock:
            if self._in_hand.get(kind, 0) >= at_once:
                return False
            self._in_hand[kind] = self._in_hand.get(kind, 0) + 1
            return True

    def end(self, kind: Hashable) -> None:
        """The message is handled."""
        with self._lock:
            left = self._in_hand[kind] - 1
            if left:
                self._in_hand[kind] = left
            else:
                del self._in_hand[kind]
