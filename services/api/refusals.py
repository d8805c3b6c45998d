"""Refused claims over HTTP."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from portclaim.common.rpc.fields import Project as ProjectName
from portclaim.common.rpc.refusal_messages import Refusal, RefusalFilter, Refusals
from portclaim.services.api.access import Anyone, Caller
from portclaim.services.api.bodies import PageAfter, PageLimit, answer
from portclaim.services.api.problems import Forbidden, responses

router = APIRouter(prefix="/v1", tags=["claims"])


@router.get("/refusals", response_model=Refusals, responses=responses())
async def list_refusals(
    caller: Anyone,
    claim_id: UUID | None = None,
    instance_id: UUID | None = None,
    project: Annotated[ProjectName | None, Query()] = None,
    reason: Annotated[str | None, Query(max_length=100)] = None,
    explained: Annotated[bool, Query(description="With the explanations, which are long.")] = False,
    limit: PageLimit = 100,
    after: PageAfter = None,
) -> Response:
    """List the claims that were refused last: at most a thousand, of the last day, the newest first.

    A refusal is listed a few seconds late. When very many claims are refused, not each of them is kept.
    """
    if caller.project is not None and project not in {None, caller.project}:
        raise Forbidden(f"the token is for project {caller.project!r}")
    wanted = RefusalFilter(
        claim_id=claim_id,
        instance_id=instance_id,
        project=caller.project or project,
        reason=reason,
        explained=explained,
        limit=limit,
        after=after,
    )
    found = await caller.backend.shared(caller.backend.scheduler.refusals, wanted)
    if caller.project is not None:
        shown = [_without_others(caller, each) for each in found.refusals]
        found = found.model_copy(update={"refusals": shown})
    return answer(found)


def _without_others(caller: Caller, refusal: Refusal) -> Refusal:
    why = refusal.explanation
    return refusal.model_copy(
        update={
            "message": caller.hide(refusal.message),
            "explanation": None if why is None else caller.hide_holders(why),
        }
    )
