"""Log and count what becomes of claims."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from portclaim.common import log_context
from portclaim.common.errors import (
    ClaimConflict,
    ClaimRefused,
    InvalidRequest,
    MoveConflict,
    PortclaimError,
    QuotaExceeded,
)
from portclaim.common.metrics.catalogue import CLAIMS
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest

LOG = logging.getLogger(__name__)

_REASONS: dict[type[Exception], str] = {
    QuotaExceeded: "quota",
    ClaimConflict: "conflict",
    MoveConflict: "conflict",
    InvalidRequest: "invalid",
}


def counted(claim: Callable[[], Claim]) -> Claim:
    """What ``claim`` answers or raises, logged and counted."""
    try:
        made = claim()
    except PortclaimError as error:
        _count(error)
        raise
    _count(made)
    return made


def count(requests: Sequence[ClaimRequest], results: Sequence[Claim | PortclaimError]) -> None:
    """Log and count the results of a batch."""
    for request, result in zip(requests, results, strict=True):
        with log_context.about(claim_id=request.claim_id):
            _count(result)


def _count(result: Claim | PortclaimError) -> None:
    if isinstance(result, Claim):
        CLAIMS.count("waiting" if result.status == "waiting" else "claimed", "")
        LOG.info("claim %s is %s on host %s", result.claim_id, result.status, result.host)
        return
    reason = _REASONS.get(type(result), "")
    if isinstance(result, ClaimRefused):
        reason = _first_empty(result.kwargs.get("explanation") or {})
    CLAIMS.count("refused" if reason else "error", reason)
    LOG.info("claim refused: %s", result)


def _first_empty(explanation: dict[str, Any]) -> str:
    """The first filter that left no device."""
    return next(
        (str(each["filter"]) for each in explanation.get("filters", ()) if not each["devices"]), "together"
    )
