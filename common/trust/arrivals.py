"""Messages that arrive from hosts with an exchange of their own: bounded before anything of them is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from portclaim.common.rpc.host_exchange import host_of_exchange
from portclaim.common.trust.rates import HostRates
from portclaim.common.trust.refusals import REFUSALS, Refusals

_BYTES = 64 * 1024  # a longer message counts as several
_CALM = 10.0  # seconds without a refused message, after which a host begins anew
# What a host has sent until the broker drops it stands in the queues before the messages of others.
_UNHEARD = 10.0  # seconds in which none of it is handled


class Bounds(NamedTuple):
    """What one worker takes from each host.

    ``rate`` messages a second, for a short time ten times as many; ``at_once`` of them in hand;
    ``most_refused`` refused ones without a pause of ten seconds, 0: any number.
    """

    rate: float
    at_once: int
    most_refused: int


class Arrivals:
    """Lets messages of hosts into one worker, as far as the bounds allow.

    Only the broker's word for the sender counts: what came through no host's exchange always enters.
    ``cut_off`` is called with a host that has sent too much. It is called in the thread that reads the queue,
    so it must be quick. Then the host's messages are dropped for ten seconds, because they are those that
    were sent before the broker cut it off. It is called again if the host goes on after that. Threads may
    share it.
    """

    def __init__(
        self, topic: str, bounds: Bounds, cut_off: Callable[[str], None], refusals: Refusals = REFUSALS
    ) -> None:
        self._topic = topic
        self._bounds = bounds
        self._rates = HostRates(bounds.rate)
        self._cut_off = cut_off
        self._refusals = refusals
        self._lock = threading.Lock()
        self._refused: dict[str, tuple[int, float]] = {}
        self._unheard: dict[str, float] = {}

    def enter(self, delivery: Mapping[str, Any], size: int) -> bool:
        """Whether a message of ``size`` bytes is to be read. ``delivery`` has what the broker says of it.

        If so, it is in hand until :meth:`leave`.
        """
        host = sender(delivery)
        if host is None:
            return True
        if self._unheard and self._is_unheard(host):
            self._note(host, "the host is cut off, and this was sent before")
            return False
        if not self._rates.begin(host, self._bounds.at_once):
            self._refuse(host, "the host's last messages are still being handled")
            return False
        if not self._rates.may_send(host, 1 + size // _BYTES):
            self._rates.end(host)
            self._refuse(host, "the host sends more than [trust] host_rate allows")
            return False
        return True

    def leave(self, host: str | None, *, is_broken: bool = False) -> None:
        """The message of this sender is handled, or it was none that a client sends."""
        if host is not None:
            self._rates.end(host)
            if is_broken:
                self._count(host)

    def _refuse(self, host: str, why: str) -> None:
        self._note(host, why)
        self._count(host)

    def _note(self, host: str, why: str) -> None:
        self._refusals.note(self._topic, "too-many", f"host:{host}", why)

    def _count(self, host: str) -> None:
        now = time.monotonic()
        with self._lock:
            count, last = self._refused.get(host, (0, now))
            count = 1 if now > last + _CALM else count + 1
            is_flood = 0 < self._bounds.most_refused <= count
            self._refused[host] = (0 if is_flood else count, now)
            if is_flood:
                self._unheard.setdefault(host, now + _UNHEARD)
        if is_flood:
            self._cut_off(host)

    def _is_unheard(self, host: str) -> bool:
        with self._lock:
            until = self._unheard.get(host)
            if until is not None and until < time.monotonic():
                del self._unheard[host]
                until = None
            return until is not None


def sender(delivery: Mapping[str, Any]) -> str | None:
    """The host whose user has sent a message; None: the broker does not say."""
    return host_of_exchange(str(delivery.get("exchange", "")))
