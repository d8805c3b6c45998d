"""The map of the fleet over HTTP: all of it, then its changes, as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Header, Query
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from portclaim.common.rpc.fields import Message
from portclaim.common.rpc.fields import Project as ProjectName
from portclaim.services.api import access
from portclaim.services.api.access import Caller, FleetReader
from portclaim.services.api.bodies import answer
from portclaim.services.api.fleet_map import FleetMap
from portclaim.services.api.problems import responses
from portclaim.services.api.stream import KEEP_ALIVE
from portclaim.services.api.totals import Samples

router = APIRouter(prefix="/v1", tags=["map"])

_RECONNECT = 1000  # milliseconds
_MOST = 20_000  # devices of which the ports are answered
_HELD = sa.text("""
    SELECT coalesce(d.parent_id, d.id)
      FROM (SELECT id FROM claims WHERE instance_id = cast(:instance_id AS uuid) AND live
             UNION ALL
            SELECT id FROM claims WHERE request ->> 'project' = cast(:project AS text) AND live) c
      JOIN pci_devices d ON d.claim_id = c.id
     LIMIT :limit
""")
_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "const": "map"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events. The first one has `whole`: it is the whole map.",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}


@router.get("/map", response_class=StreamingResponse, responses=responses() | _CONTENT)
async def fleet_map(
    caller: FleetReader,
    last_event_id: Annotated[str | None, Header(max_length=100, description="The last `id`.")] = None,
    until: Annotated[
        float | None, Query(gt=0, le=86400, description="Seconds until the stream ends. None: no limit.")
    ] = None,
) -> StreamingResponse:
    """Follow the fleet's hosts and ports: all of them, then each change. This is what the page shows.

    After `Last-Event-ID` come the changes since then, or all anew if it is too old.
    """
    fleet: FleetMap = caller.backend.map
    viewing = fleet.viewing()
    news = await viewing.__aenter__()  # a refusal has a status of its own only before the stream begins

    async def stream() -> AsyncIterator[bytes]:
        try:
            async for part in _stream(caller, fleet, news, _version(fleet, last_event_id), until):
                yield part
        finally:
            await viewing.__aexit__(None, None, None)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


class HeldPorts(Message):
    """The ports of which somebody holds devices."""

    ports: list[int] = Field(description="Their ids, as the map has them.")
    more: bool = Field(description="True: there are more, and they are not answered.")


@router.get("/map/held", response_model=HeldPorts, responses=responses())
async def held_ports(
    caller: FleetReader,
    instance_id: UUID | None = None,
    project: Annotated[ProjectName | None, Query()] = None,
) -> Response:
    """List the ports of which the live claims of an instance or of a project hold devices."""
    facts = {"instance_id": instance_id, "project": project, "limit": _MOST + 1}
    found = await caller.backend.query(lambda c: c.scalars(_HELD, facts).all())
    return answer(HeldPorts(ports=sorted(set(found[:_MOST])), more=len(found) > _MOST))


@router.get("/totals", response_model=Samples, responses=responses())
async def fleet_totals(caller: FleetReader) -> Response:
    """Show the fleet's totals over the last hour, as far as the API process that answers has run."""
    return answer(caller.backend.totals.samples())


async def _stream(
    caller: Caller, fleet: FleetMap, news: asyncio.Event, version: int | None, until: float | None
) -> AsyncIterator[bytes]:
    feed, loop = caller.backend.feed, asyncio.get_running_loop()
    deadline = float("inf") if until is None else loop.time() + until
    sent = loop.time()
    yield f"retry: {_RECONNECT}\n\n".encode()
    while not feed.ending.is_set() and loop.time() < deadline and await caller.is_valid():
        news.clear()
        messages = fleet.messages(version)
        if messages:
            version = messages[-1].version
            yield b"".join(message.part for message in messages)
            sent = loop.time()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), min(access.REMEMBERED, max(deadline - loop.time(), 0)))
        if loop.time() >= sent + KEEP_ALIVE:
            yield b": still here\n\n"
            sent = loop.time()


def _version(fleet: FleetMap, last_event_id: str | None) -> int | None:
    epoch, _, number = (last_event_id or "").partition(".")
    return int(number) if epoch == fleet.epoch and number.isdecimal() else None
