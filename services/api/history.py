"""What operators look at over HTTP: histories, and how the fleet is in numbers."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from portclaim.common.errors import ClaimNotFound, InvalidRequest, UnknownHost
from portclaim.common.rpc.fields import Address, Host
from portclaim.common.rpc.history_messages import History, HistoryFilter
from portclaim.common.rpc.summary_messages import FleetSummary
from portclaim.services.api.access import Anyone, FleetReader
from portclaim.services.api.bodies import answer
from portclaim.services.api.problems import responses

router = APIRouter(prefix="/v1", tags=["history"])

Most = Annotated[int, Query(ge=1, le=1000, description="The most holdings, changes and steps to answer.")]


@router.get("/claims/{claim_id}/history", response_model=History, responses=responses(ClaimNotFound))
async def claim_history(claim_id: UUID, caller: Anyone, limit: Most = 20) -> Response:
    """Show what happened to a claim: its devices, its changes, and the steps its agent has not answered."""
    await caller.check_claims([claim_id])
    wanted = HistoryFilter(claim_id=claim_id, limit=limit)
    return answer(await caller.backend.call(caller.backend.scheduler.history, wanted))


@router.get("/hosts/{host}/history", response_model=History, responses=responses(UnknownHost, InvalidRequest))
async def host_history(
    host: Host,
    caller: FleetReader,
    address: Annotated[
        Address | None, Query(description="Only this device, and the VFs of a PF. None: all.")
    ] = None,
    limit: Most = 20,
) -> Response:
    """Show what happened to the devices of a host: who held them, and what changed."""
    wanted = HistoryFilter(host=host, address=address, limit=limit)
    return answer(await caller.backend.call(caller.backend.scheduler.history, wanted))


@router.get("/summary", response_model=FleetSummary, responses=responses())
async def fleet_summary(caller: FleetReader) -> Response:
    """Say how the fleet is in numbers. It costs little: no devices are read."""
    return answer(await caller.backend.call(caller.backend.scheduler.summary))
