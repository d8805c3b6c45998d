"""Count what becomes of claims, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from portclaim.common.errors import (
    ClaimConflict,
    ClaimRefused,
    InvalidRequest,
    MoveConflict,
    PortclaimError,
    QuotaExceeded,
)
from portclaim.common.metrics import kinds
from portclaim.common.metrics.catalogue import CLAIMS
from portclaim.common.rpc.claim_messages import Claim

_REASONS: dict[type[Exception], str] = {
    QuotaExceeded: "quota",
    ClaimConflict: "conflict",
    MoveConflict: "conflict",
    InvalidRequest: "invalid",
}


def counted(claim: Callable[[], Claim]) -> Claim:
    """What ``claim`` answers or raises, counted."""
    if not kinds.is_on():
        return claim()
    try:
        made = claim()
    except PortclaimError as error:
        _count(error)
        raise
    _count(made)
    return made


def count(results: Sequence[Claim | PortclaimError]) -> None:
    """Count the results of a batch."""
    if kinds.is_on():
        for result in results:
            _count(result)


def _count(result: Claim | PortclaimError) -> None:
    if isinstance(result, Claim):
        CLAIMS.count("waiting" if result.status == "waiting" else "claimed", "")
    elif isinstance(result, ClaimRefused):
        CLAIMS.count("refused", _first_empty(result.kwargs.get("explanation") or {}))
    elif reason := _REASONS.get(type(result)):
        CLAIMS.count("refused", reason)
    else:
        CLAIMS.count("error", "")


def _first_empty(explanation: dict[str, Any]) -> str:
    """The first filter that left no device."""
    return next(
        (str(each["filter"]) for each in explanation.get("filters", ()) if not each["devices"]), "together"
    )
