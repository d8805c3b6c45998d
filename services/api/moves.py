"""Moves over HTTP. A move has the id of its target claim."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from portclaim.common.errors import (
    ClaimConflict,
    ClaimNotFound,
    ClaimRefused,
    InvalidRequest,
    MoveConflict,
    MoveNotFound,
    PortclaimError,
    QuotaExceeded,
)
from portclaim.common.rpc.move_messages import Move, MoveRequest
from portclaim.services.api.access import Claimer
from portclaim.services.api.bodies import MoveBody, OrderBody, answer, complete
from portclaim.services.api.problems import responses

router = APIRouter(prefix="/v1", tags=["moves"])


@router.put(
    "/moves/{claim_id}",
    response_model=Move,
    responses=responses(ClaimRefused, ClaimConflict, ClaimNotFound, MoveConflict, QuotaExceeded),
)
async def put_move(claim_id: UUID, body: MoveBody, caller: Claimer) -> Response:
    """Claim devices on another host for the same instance. The caller chooses the id of the new claim.

    The same request with the same id gets the same move as it is now.
    """
    if body.claim_id not in {None, claim_id}:
        raise InvalidRequest("claim_id in the body is not the one in the path")
    await caller.check_claims([body.source_claim_id])
    request = complete(MoveRequest, body, claim_id=claim_id, who=caller.name)
    try:
        return answer(await caller.backend.call(caller.backend.scheduler.move, request))
    except PortclaimError as error:
        raise caller.refusal(error) from None


@router.post(
    "/moves/{claim_id}/complete",
    response_model=Move,
    responses=responses(ClaimNotFound, MoveNotFound, MoveConflict),
)
async def complete_move(claim_id: UUID, caller: Claimer, body: OrderBody | None = None) -> Response:
    """Release the source of a move as soon as its target is allocated."""
    await caller.check_claims([claim_id])
    end_move = caller.backend.scheduler.complete_move
    reason = None if body is None else body.reason
    return answer(await caller.backend.call(end_move, claim_id, who=caller.name, reason=reason))


@router.post(
    "/moves/{claim_id}/revert",
    response_model=Move,
    responses=responses(ClaimNotFound, MoveNotFound, MoveConflict),
)
async def revert_move(claim_id: UUID, caller: Claimer, body: OrderBody | None = None) -> Response:
    """Release the target of a move. The instance keeps the devices of the source."""
    await caller.check_claims([claim_id])
    end_move = caller.backend.scheduler.revert_move
    reason = None if body is None else body.reason
    return answer(await caller.backend.call(end_move, claim_id, who=caller.name, reason=reason))
