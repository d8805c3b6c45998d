"""Messages that arrive from hosts with an exchange of their own: bounded before anything of them is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from portclaim.common.rpc.host_exchange import host_of_exchange
from portclaim.common.trust.rates import HostRates
from portclaim.common.trust.refusals import REFUSALS, Refusals

_BYTES = 64 * 1024  # a longer message counts as several
_CALM = 10.0  # seconds without a refused message, after which a host begins anew


class Arrivals:
    """What one worker takes from each host: ``rate`` messages a second, for a short time ten times as many.

    ``cut_off`` is called with a host when ``most_refused`` of its messages were refused without a pause of
    ten seconds; 0: never. It is called in the thread that reads the queue, so it must be quick. It is called
    again after as many messages more. Threads may share it.
    """

    def __init__(
        self,
        topic: str,
        rate: float,
        most_refused: int,
        cut_off: Callable[[str], None],
        refusals: Refusals = REFUSALS,
    ) -> None:
        self._topic = topic
        self._rates = HostRates(rate)
        self._most_refused = most_refused
        self._cut_off = cut_off
        self._refusals = refusals
        self._lock = threading.Lock()
        self._refused: dict[str, tuple[int, float]] = {}

    def may_pass(self, delivery: Mapping[str, Any], size: int) -> bool:
        """Whether a message of ``size`` bytes is to be read. ``delivery`` has what the broker says of it.

        Only the broker's word for the sender counts: a message that came through no host's exchange passes.
        """
        host = host_of_exchange(str(delivery.get("exchange", "")))
        if host is None or self._rates.may_send(host, 1 + size // _BYTES):
            return True
        self._refusals.note(
            self._topic, "too-many", f"host:{host}", "the host sends more than [trust] host_rate allows"
        )
        if self._is_flood(host):
            self._cut_off(host)
        return False

    def _is_flood(self, host: str) -> bool:
        now = time.monotonic()
        with self._lock:
            count, last = self._refused.get(host, (0, now))
            count = 1 if now > last + _CALM else count + 1
            is_flood = 0 < self._most_refused <= count
            self._refused[host] = (0 if is_flood else count, now)
            return is_flood
