"""Log and count what becomes of claims. The reasons of refusals are those of :mod:`refusal_counts`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from portclaim.common import log_context
from portclaim.common.errors import PortclaimError
from portclaim.common.metrics.catalogue import CLAIMS
from portclaim.common.pci.errors import PciError
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.services.scheduler.refusal_counts import reason_of

LOG = logging.getLogger(__name__)


def counted(claim: Callable[[], Claim]) -> Claim:
    """What ``claim`` answers or raises, logged and counted."""
    try:
        made = claim()
    except (PortclaimError, PciError) as error:
        _count(error)
        raise
    _count(made)
    return made


def count(requests: Sequence[ClaimRequest], results: Sequence[Claim | PortclaimError]) -> None:
    """Log and count the results of a batch."""
    for request, result in zip(requests, results, strict=True):
        with log_context.about(claim_id=request.claim_id):
            _count(result)


def released(claims: Iterable[Claim]) -> None:
    """Log claims whose release has begun, or that had ended already."""
    for claim in claims:
        with log_context.about(claim_id=claim.claim_id):
            LOG.info("claim %s is %s on host %s", claim.claim_id, claim.status, claim.host)


def _count(result: Claim | PortclaimError | PciError) -> None:
    if isinstance(result, Claim):
        CLAIMS.count("waiting" if result.status == "waiting" else "claimed", "")
        LOG.info("claim %s is %s on host %s", result.claim_id, result.status, result.host)
    elif reason := reason_of(result):
        CLAIMS.count("refused", reason)
        LOG.info("claim refused: %s", result)
    else:
        CLAIMS.count("error", "")
        LOG.info("claim not made: %s", result)
