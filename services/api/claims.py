"""Claims over HTTP: make, show, wait, list, release, explain, candidates."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from portclaim.common.errors import (
    ClaimConflict,
    ClaimNotFound,
    ClaimRefused,
    HostIsAlive,
    InvalidRequest,
    PortclaimError,
    QuotaExceeded,
)
from portclaim.common.events.wait import Goal, is_over
from portclaim.common.rpc.alias_messages import Aliases
from portclaim.common.rpc.batch_messages import ClaimBatch, Outcomes, ReleaseBatch
from portclaim.common.rpc.candidate_messages import Candidates, CandidatesRequest
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest, ExplainRequest, Explanation
from portclaim.common.rpc.fields import ClaimStatus, Host
from portclaim.common.rpc.fields import Project as ProjectName
from portclaim.common.rpc.operator_messages import ClaimFilter, Claims, WaitingClaims, WaitingFilter
from portclaim.services.api.access import Anyone, Caller, Claimer, Operator
from portclaim.services.api.bodies import (
    Age,
    ClaimBody,
    ExplainBody,
    PageAfter,
    PageLimit,
    ReasonBody,
    answer,
    complete,
)
from portclaim.services.api.problems import Forbidden, responses

router = APIRouter(prefix="/v1", tags=["claims"])

LONGEST_WAIT = 60.0  # seconds that one request may wait for a status
_LOOK = 5.0  # seconds until a claim is looked up although no event came


@router.put(
    "/claims/{claim_id}",
    response_model=Claim,
    responses=responses(ClaimRefused, ClaimConflict, QuotaExceeded)
    | {202: {"model": Claim, "description": "It waits."}},
)
async def put_claim(claim_id: UUID, body: ClaimBody, caller: Claimer) -> Response:
    """Reserve devices for an instance: all of them on one host, or none.

    The caller chooses the id. The same request with the same id gets the same claim, so it can be repeated.
    202: no host can serve it now, and it waits in a queue because the request has `wait`.
    """
    if body.claim_id not in {None, claim_id}:
        raise InvalidRequest("claim_id in the body is not the one in the path")
    request = await _own(caller, complete(ClaimRequest, body, claim_id=claim_id))
    try:
        made = await caller.backend.call(caller.backend.scheduler.claim, request)
    except PortclaimError as error:
        raise caller.refusal(error) from None
    return answer(made, 202 if made.status == "waiting" else 200)


@router.post("/claims:batch", response_model=Outcomes, responses=responses())
async def claim_many(body: ClaimBatch, caller: Claimer) -> Response:
    """Make up to 256 claims. Each is served or refused by itself, in this order."""
    requests = [await _own(caller, request) for request in body.claims]
    results = await caller.backend.call(caller.backend.scheduler.claim_many, requests)
    hidden = [caller.refusal(each) if isinstance(each, PortclaimError) else each for each in results]
    return answer(Outcomes.of(hidden))


@router.post("/claims:release", response_model=Outcomes, responses=responses(ClaimNotFound))
async def release_many(body: ReleaseBatch, caller: Claimer) -> Response:
    """Release up to 256 claims."""
    await caller.check_claims(body.claim_ids)
    return answer(
        Outcomes.of(await caller.backend.call(caller.backend.scheduler.release_many, body.claim_ids))
    )


@router.get("/claims/{claim_id}", response_model=Claim, responses=responses(ClaimNotFound))
async def get_claim(
    claim_id: UUID,
    caller: Anyone,
    wait_for: Annotated[
        Goal | None,
        Query(description="Answer when the claim is that far, or cannot be any more, or `timeout` is over."),
    ] = None,
    timeout: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT, description="With `wait_for`: seconds to wait at most.")
    ] = 30.0,
) -> Response:
    """Look up a claim, with its latest move. With `wait_for`, the request waits; look at `status`."""
    await caller.check_claims([claim_id])
    scheduler = caller.backend.scheduler
    if wait_for is None:
        return answer(await caller.backend.call(scheduler.show, claim_id))
    deadline = asyncio.get_running_loop().time() + timeout
    feed = caller.backend.feed
    async with feed.listening(claim_id) as news:
        while True:
            news.clear()
            claim = await caller.backend.call(scheduler.show, claim_id)
            left = deadline - asyncio.get_running_loop().time()
            if is_over(claim.status, wait_for) or left <= 0 or feed.ending.is_set():
                return answer(claim)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), min(left, _LOOK))


@router.delete("/claims/{claim_id}", response_model=Claim, responses=responses(ClaimNotFound))
async def delete_claim(claim_id: UUID, caller: Claimer) -> Response:
    """Release a claim. Its devices are free when its agent has detached them.

    A claim that is being released, or has ended, does not change.
    """
    await caller.check_claims([claim_id])
    return answer(await caller.backend.call(caller.backend.scheduler.release, claim_id))


@router.post(
    "/claims/{claim_id}/force-release", response_model=Claim, responses=responses(ClaimNotFound, HostIsAlive)
)
async def force_release(claim_id: UUID, body: ReasonBody, caller: Operator) -> Response:
    """End a claim without its agent, because its host is silent and will not come back."""
    scheduler = caller.backend.scheduler
    return answer(await caller.backend.call(scheduler.force_release, claim_id, caller.name, body.reason))


@router.post("/claims/{claim_id}/attach", response_model=Claim, responses=responses(ClaimNotFound))
async def attach(claim_id: UUID, caller: Claimer) -> Response:
    """Let the agent attach the devices of a claim that was made with `attach` on-call."""
    await caller.check_claims([claim_id])
    return answer(await caller.backend.call(caller.backend.scheduler.attach, claim_id))


@router.get("/claims", response_model=Claims, responses=responses())
async def list_claims(
    caller: Anyone,
    status: Annotated[
        list[ClaimStatus] | None, Query(description="May be repeated. None: all that have not ended.")
    ] = None,
    host: Annotated[Host | None, Query()] = None,
    instance_id: UUID | None = None,
    project: Annotated[ProjectName | None, Query()] = None,
    older_than: Age | None = None,
    newer_than: Age | None = None,
    limit: PageLimit = 100,
    after: PageAfter = None,
) -> Response:
    """List claims, the oldest first, page by page."""
    if caller.project is not None and project not in {None, caller.project}:
        raise Forbidden(f"the token is for project {caller.project!r}")
    wanted = ClaimFilter(
        statuses=status or None,
        host=host,
        instance_id=instance_id,
        project=caller.project or project,
        older_than=older_than,
        newer_than=newer_than,
        limit=limit,
        after=after,
    )
    return answer(await caller.backend.call(caller.backend.scheduler.claims, wanted))


@router.get("/waiting", response_model=WaitingClaims, responses=responses(ClaimNotFound))
async def list_waiting(
    caller: Anyone,
    claim_id: UUID | None = None,
    host: Annotated[Host | None, Query()] = None,
    instance_id: UUID | None = None,
    limit: PageLimit = 100,
    after: PageAfter = None,
) -> Response:
    """List the claims that wait, with their position. A token of a project must name the claim."""
    if claim_id is None and caller.project is not None:
        raise Forbidden(
            "a token of a project sees the queues only with claim_id: list claims with status=waiting"
        )
    await caller.check_claims([] if claim_id is None else [claim_id])
    wanted = WaitingFilter(claim_id=claim_id, host=host, instance_id=instance_id, limit=limit, after=after)
    return answer(await caller.backend.shared(caller.backend.scheduler.waiting, wanted))


@router.post("/explain", response_model=Explanation, responses=responses(ClaimNotFound))
async def explain(body: ExplainBody, caller: Anyone) -> Response:
    """Say whether a claim would be served now, and why not. It reserves nothing."""
    await caller.check_claims([*body.near, *body.apart_from])
    why = await caller.backend.call(caller.backend.scheduler.explain, complete(ExplainRequest, body))
    return answer(caller.hide_holders(why))


@router.post("/candidates", response_model=Candidates, responses=responses(ClaimNotFound))
async def candidates(body: CandidatesRequest, caller: Anyone) -> Response:
    """List the hosts that could serve a claim now, the best first. It reserves nothing."""
    await caller.check_claims([*body.near, *body.apart_from])
    return answer(await caller.backend.call(caller.backend.scheduler.candidates, body))


@router.get("/aliases", response_model=Aliases, responses=responses())
async def aliases(caller: Anyone) -> Response:
    """List the aliases of the scheduler, and how many devices match each."""
    return answer(await caller.backend.call(caller.backend.scheduler.aliases))


async def _own(caller: Caller, request: ClaimRequest) -> ClaimRequest:
    """The request for the caller's project. Raises :class:`Forbidden`, :class:`ClaimNotFound`."""
    await caller.check_claims([*request.near, *request.apart_from])
    project = caller.project_of(request.project)
    return request if project == request.project else request.model_copy(update={"project": project})
