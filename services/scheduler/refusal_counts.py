"""How many claims were refused, why, and which were the last.

A refusal writes nothing, so that "no" costs as little as "yes". Each worker counts its refusals in memory and
keeps the newest. Every few seconds it adds the sums to the table ``refused_claims``, and writes the newest
to ``refused_requests``. A worker that is killed loses what it has counted since. If a connection is lost just
when the sums are committed, they are added twice.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy import exc

from portclaim.common.errors import (
    ClaimConflict,
    ClaimRefused,
    InvalidRequest,
    MoveConflict,
    QuotaExceeded,
    ServiceUnavailable,
)
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.errors import PciError
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.services.scheduler.recent_refusals import KEPT, RecentRefusals, as_rows

PAUSE = 3.0
"""Seconds between two additions to the table."""

_ALIAS = "pci_passthrough:alias"
_UNKNOWN = "unknown"
_REASONS: dict[type[Exception], str] = {
    QuotaExceeded: "quota",
    ClaimConflict: "conflict",
    MoveConflict: "conflict",
    InvalidRequest: "invalid",
}

_COUNT = sa.text("SELECT count_refusals(:reasons, :aliases, :numbers)")
_KEEP = sa.text("SELECT keep_refusals(cast(:refused AS jsonb), :most)")


def reason_of(error: Exception) -> str | None:
    """Why a claim was refused, in one word. None: the error is no refusal, and the call may be repeated.

    A claim that no host can serve has the ``reason`` of its explanation. The other words are ``quota``,
    ``conflict`` (the id is used, or the claim is being moved) and ``invalid`` (for example an unknown alias).
    """
    if isinstance(error, ClaimRefused):
        explanation = error.kwargs.get("explanation") or {}
        return explanation.get("reason") or _UNKNOWN
    return "invalid" if isinstance(error, PciError) else _REASONS.get(type(error))


def alias_of(extra_specs: Mapping[str, str], aliases: Aliases) -> str:
    """The alias that a claim asks for. Empty: none that is configured, or several."""
    name = extra_specs.get(_ALIAS, "").partition(":")[0].strip()
    return name if name in aliases.by_name and "," not in extra_specs[_ALIAS] else ""


class RefusalCounts:
    """Counts refused claims by reason and alias, and keeps the newest. Threads may share one."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._recent = RecentRefusals()

    @contextmanager
    def counted(self, request: ClaimRequest, aliases: Aliases) -> Iterator[None]:
        """Count the error that ends the block, if it refuses this request."""
        try:
            yield
        except Exception as error:
            self.count(error, request, aliases)
            raise

    def count(self, error: Exception, request: ClaimRequest, aliases: Aliases) -> None:
        """Count an error, if it refuses this request."""
        if reason := reason_of(error):
            key = reason, alias_of(request.extra_specs, aliases)
            with self._lock:
                self._counts[key] += 1
                self._recent.add(request, reason, error)

    def record(self) -> bool:
        """Add to the database what was counted since the last time. If that fails, the next time adds it."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            recent = self._recent.take()
        if not counts:
            return False
        facts = {
            "reasons": [reason for reason, _ in counts],
            "aliases": [alias for _, alias in counts],
            "numbers": list(counts.values()),
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(_COUNT, facts)
                connection.execute(_KEEP, {"refused": json.dumps(as_rows(recent)), "most": KEPT})
        except exc.SQLAlchemyError as error:
            with self._lock:
                self._counts.update(counts)
                self._recent.put_back(recent)
            raise ServiceUnavailable(f"the database has not taken the refusals: {error}") from error
        return False
