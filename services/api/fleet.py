"""The fleet over HTTP: hosts, devices, pools, unanswered steps."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Query
from starlette.responses import Response

from portclaim.common.errors import HostInUse, HostIsAlive, UnknownHost
from portclaim.common.rpc.claim_messages import DeviceFilter, Devices
from portclaim.common.rpc.fields import DeviceStatus, DevType, HexId, Host
from portclaim.common.rpc.operator_messages import (
    AwaitedSteps,
    HostFilter,
    Hosts,
    HostSummary,
    LiveClaims,
    Retried,
    StepFilter,
)
from portclaim.services.api.access import FleetReader, Operator
from portclaim.services.api.bodies import (
    Age,
    DrainBody,
    PageAfter,
    PageLimit,
    Pool,
    Pools,
    ReasonBody,
    RenewBody,
    Renewed,
    RetryBody,
    UndrainBody,
    answer,
)
from portclaim.services.api.problems import responses

router = APIRouter(prefix="/v1", tags=["fleet"])

_POOLS = sa.text("""
    WITH page AS (
        SELECT host FROM compute_nodes
         WHERE (cast(:host AS text) IS NULL OR host = :host)
           AND (cast(:after AS text) IS NULL OR host > :after)
         ORDER BY host LIMIT :limit)
    SELECT page.host AS of_host, t.*
      FROM page
      LEFT JOIN LATERAL (SELECT * FROM pool_totals WHERE pool_totals.host = page.host) t ON true
     ORDER BY page.host, t.dev_type, t.vendor_id, t.product_id, t.numa_node, t.tags::text
""")


@router.get("/hosts", response_model=Hosts, responses=responses())
async def list_hosts(
    caller: FleetReader,
    host: Annotated[list[Host] | None, Query(max_length=1000, description="May be repeated.")] = None,
    prefix: Annotated[Host | None, Query()] = None,
    is_silent: bool | None = None,
    is_drained: bool | None = None,
    limit: PageLimit = 100,
    after: PageAfter = None,
) -> Response:
    """List hosts: whether they take claims, and how many of their devices are available or held."""
    wanted = HostFilter(
        hosts=host or None,
        prefix=prefix,
        is_silent=is_silent,
        is_drained=is_drained,
        limit=limit,
        after=after,
    )
    return answer(await caller.backend.call(caller.backend.scheduler.hosts, wanted))


@router.get("/hosts/{host}", response_model=HostSummary, responses=responses(UnknownHost))
async def get_host(host: Host, caller: FleetReader) -> Response:
    """Look up a host."""
    found = (await caller.backend.call(caller.backend.scheduler.hosts, HostFilter(host=host))).hosts
    if not found:
        raise UnknownHost(f"no agent has ever reported for host {host}", host=host)
    return answer(found[0])


@router.post("/hosts/{host}/drain", response_model=LiveClaims, responses=responses(UnknownHost))
async def drain(host: Host, body: DrainBody, caller: Operator) -> Response:
    """Stop new claims on a host, or on one of its ports. Answers how many live claims it still has."""
    scheduler = caller.backend.scheduler
    left = await caller.backend.call(scheduler.drain, host, body.reason, body.address, who=caller.name)
    return answer(LiveClaims(live_claims=left))


@router.post("/hosts/{host}/undrain", response_model=LiveClaims, responses=responses(UnknownHost))
async def undrain(host: Host, body: UndrainBody, caller: Operator) -> Response:
    """Allow new claims again."""
    end_drain = caller.backend.scheduler.undrain
    left = await caller.backend.call(end_drain, host, body.address, who=caller.name, reason=body.reason)
    return answer(LiveClaims(live_claims=left))


@router.post("/hosts/{host}/renew", response_model=Renewed, responses=responses(UnknownHost))
async def renew_device(host: Host, body: RenewBody, caller: Operator) -> Response:
    """Allow a device of a host that was used once (`one_time_use`) to be handed out again."""
    renew = caller.backend.scheduler.renew_device
    renewed = await caller.backend.call(renew, host, body.address, who=caller.name, reason=body.reason)
    return answer(Renewed(renewed=renewed))


@router.post(
    "/hosts/{host}/remove",
    response_model=LiveClaims,
    responses=responses(UnknownHost, HostIsAlive, HostInUse),
)
async def remove(host: Host, body: ReasonBody, caller: Operator, force: bool = False) -> Response:
    """Remove a silent host. With `force`, its live claims end as force-release ends them."""
    remove_host = caller.backend.scheduler.remove_host
    ended = await caller.backend.call(remove_host, host, caller.name, body.reason, force=force)
    return answer(LiveClaims(live_claims=ended))


@router.get("/devices", response_model=Devices, responses=responses())
async def list_devices(
    caller: FleetReader,
    host: Annotated[Host | None, Query()] = None,
    dev_type: DevType | None = None,
    status: Annotated[
        DeviceStatus | None, Query(description="The effective status. None: all but removed devices.")
    ] = None,
    claim_id: UUID | None = None,
    vendor_id: Annotated[HexId | None, Query()] = None,
    product_id: Annotated[HexId | None, Query()] = None,
    limit: PageLimit = 1000,
    after: PageAfter = None,
) -> Response:
    """List devices, by host and port, each PF before its VFs: `port` says which device is whose."""
    wanted = DeviceFilter(
        host=host,
        dev_type=dev_type,
        status=status,
        claim_id=claim_id,
        vendor_id=vendor_id,
        product_id=product_id,
        limit=limit,
        after=after,
    )
    return answer(await caller.backend.call(caller.backend.scheduler.devices, wanted))


@router.get("/pools", response_model=Pools, responses=responses())
async def list_pools(
    caller: FleetReader,
    host: Annotated[Host | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="The most hosts to answer.")] = 100,
    after: Annotated[Host | None, Query(description="`after` of the last answer.")] = None,
) -> Response:
    """Count the devices of each host that are alike, by effective status."""
    facts = {"host": host, "after": after, "limit": limit + 1}
    rows = await caller.backend.query(lambda c: c.execute(_POOLS, facts).mappings().all())
    hosts = sorted({row["of_host"] for row in rows})
    shown = set(hosts[:limit])
    names = list(Pool.model_fields)
    pools = [
        Pool(**{name: row[name] for name in names}) for row in rows if row["host"] and row["of_host"] in shown
    ]
    more = len(hosts) > limit
    return answer(Pools(pools=pools, more=more, after=hosts[limit - 1] if more else None))


@router.get("/steps", response_model=AwaitedSteps, responses=responses())
async def list_steps(
    caller: FleetReader,
    host: Annotated[Host | None, Query()] = None,
    parked: bool = False,
    older_than: Age | None = None,
    limit: PageLimit = 100,
    after: PageAfter = None,
) -> Response:
    """List the steps that agents have not answered, the oldest first."""
    wanted = StepFilter(host=host, parked=parked, older_than=older_than, limit=limit, after=after)
    return answer(await caller.backend.call(caller.backend.scheduler.awaited_steps, wanted))


@router.post("/steps:retry", response_model=Retried, responses=responses())
async def retry(body: RetryBody, caller: Operator) -> Response:
    """Send unanswered steps now: those of these claims, or all parked ones."""
    send = caller.backend.scheduler.retry
    sent = await caller.backend.call(send, body.claim_ids, body.host, who=caller.name, reason=body.reason)
    return answer(Retried(steps=sent))
