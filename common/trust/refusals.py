"""Refused messages: counted, and logged with few lines however many there are."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Literal

import cachetools

from portclaim.common.metrics.catalogue import MESSAGES_REFUSED

LOG = logging.getLogger(__name__)

Reason = Literal[
    "unsigned",
    "malformed-signature",
    "unknown-key",
    "foreign-host",
    "not-allowed",
    "stale",
    "altered",
    "replayed",
    "too-many",
    "bad-envelope",
]
"""Why a message is refused. Metrics have these as labels."""

_PAUSE = 60.0  # seconds between two lines about the same
_MOST_LINES = 60  # of a kind, in that time
_MOST_KINDS = 1000  # kinds of lines that are remembered: a sender can choose the names in them


class Refusals:
    """The refused messages of a process. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, Reason]] = Counter()
        self._silenced: cachetools.TTLCache[tuple[str, ...], int] = cachetools.TTLCache(_MOST_KINDS, _PAUSE)
        self._left_out = 0
        self._lines: cachetools.LRUCache[str, tuple[float, int]] = cachetools.LRUCache(_MOST_KINDS)

    def counts(self) -> Mapping[tuple[str, Reason], int]:
        """How many messages were refused since the process began, by topic and reason."""
        with self._lock:
            return dict(self._counts)

    def may_log(self, kind: str) -> bool:
        """Whether one more line of this kind may be logged: 60 a minute, not more."""
        now = time.monotonic()
        with self._lock:
            begun, lines = self._lines.get(kind, (now, 0))
            if now > begun + _PAUSE:
                begun, lines = now, 0
            self._lines[kind] = (begun, lines + 1)
            return lines < _MOST_LINES

    def note(self, topic: str, reason: Reason, who: str, detail: str) -> None:
        """Count a refused message, and log it unless the same was logged in the last minute.

        ``who`` sent it, or says so. ``detail`` says what was wrong and what to do.
        """
        with self._lock:
            self._counts[topic, reason] += 1
            MESSAGES_REFUSED.count(topic, reason)
            kind = (topic, reason, who)
            if kind in self._silenced or len(self._silenced) >= _MOST_KINDS:
                self._left_out += 1
                return
            self._silenced[kind] = 1
            left_out, self._left_out = self._left_out, 0
        more = f" ({left_out} other refusals were not logged)" if left_out else ""
        LOG.warning("refused a message for %s from %s (%s): %s%s", topic, _safe(who), reason, detail, more)


REFUSALS = Refusals()
"""Those of this process."""


def _safe(text: str) -> str:
    """A text that a sender has chosen, fit for a log."""
    return text[:300] if text.isprintable() else ascii(text[:300])
