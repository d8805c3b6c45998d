"""Single claims and releases of callers that ask at the same time, made together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from portclaim.common import tracing
from portclaim.common.group_commit import GroupCommit
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.services.scheduler import claim_outcomes
from portclaim.services.scheduler.batches import ClaimBatches
from portclaim.services.scheduler.claims import ClaimEngine
from portclaim.services.scheduler.fleet import Requirements

_LARGEST = 32


class _Asked(NamedTuple):
    request: ClaimRequest
    requirements: Requirements
    trace: str | None = None


class _Released(NamedTuple):
    claim_id: UUID
    trace: str | None = None


class GroupedClaims:
    """Makes and releases claims as :class:`ClaimEngine` does. Threads may share one, and should."""

    def __init__(self, claims: ClaimEngine, batches: ClaimBatches) -> None:
        self._claims = claims
        self._batches = batches
        self._claim = GroupCommit(self._claim_group, _LARGEST, _are_alike)
        self._release = GroupCommit(self._release_group, _LARGEST)

    def claim(self, request: ClaimRequest, requirements: Requirements) -> Claim:
        """See :meth:`ClaimEngine.claim`. What cannot be made quickly is made by the calling thread alone."""
        if requirements.limits_hosts:
            return self._claims.claim(request, requirements)
        made = self._claim(_Asked(request, requirements, tracing.current()))
        return made or self._claims.claim(request, requirements, not_at_once=True)

    def release(self, claim_id: UUID) -> Claim:
        """See :meth:`ClaimEngine.release`."""
        released = self._release(_Released(claim_id, tracing.current())) or self._claims.release(claim_id)
        claim_outcomes.released([released])
        return released

    def _claim_group(self, asked: Sequence[_Asked]) -> list[Claim | None]:
        requirements = asked[0].requirements
        if len(asked) == 1:
            return [self._claims.claim_at_once(asked[0].request, requirements)]
        parents = {str(each.request.claim_id): each.trace for each in asked if each.trace is not None}
        made = self._batches.claim_alike([each.request for each in asked], requirements, parents)
        # If an id comes twice, the claim was made for the first request.
        return [made.pop(each.request.claim_id, None) for each in asked]

    def _release_group(self, asked: Sequence[_Released]) -> list[Claim | None]:
        if len(asked) == 1:
            return [self._claims.release(asked[0].claim_id)]
        parents = {str(each.claim_id): each.trace for each in asked if each.trace is not None}
        released = self._batches.released([each.claim_id for each in asked], wait=False, parents=parents)
        return [released.get(each.claim_id) for each in asked]


def _are_alike(one: _Asked, other: _Asked) -> bool:
    return one.requirements == other.requirements
