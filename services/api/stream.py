"""Events as server-sent events. A client that comes back continues after its last id."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query
from starlette.responses import StreamingResponse

from portclaim.common.errors import ServiceUnavailable
from portclaim.common.events.schema import Event, EventFilter
from portclaim.common.rpc.fields import ClaimStatus, DeviceStatus, Host
from portclaim.services.api import access
from portclaim.services.api.access import Anyone, Caller, FleetReader
from portclaim.services.api.events import BATCH, EventFeed, EventReader, Recorded
from portclaim.services.api.problems import responses

LOG = logging.getLogger(__name__)

router = APIRouter(prefix="/v1", tags=["events"])

KEEP_ALIVE = 15.0  # seconds without an event until a comment is sent
_RECONNECT = 2000  # milliseconds until a client that lost its connection comes back

LastId = Annotated[int | None, Header(ge=0, lt=2**63)]
After = Annotated[
    int | None, Query(ge=0, lt=2**63, description="As Last-Event-ID. 0: from the beginning. None: from now.")
]
Until = Annotated[
    float | None, Query(gt=0, le=86400, description="Seconds until the stream ends. None: no limit.")
]

_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": ["claim", "device"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events. `id` is for `Last-Event-ID`, `data` is an Event as JSON.",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}


@router.get("/events", response_class=StreamingResponse, responses=responses() | _CONTENT)
async def events(
    caller: Anyone,
    last_event_id: LastId = None,
    after: After = None,
    status: Annotated[list[ClaimStatus] | None, Query(description="May be repeated.")] = None,
    host: Annotated[list[Host] | None, Query(description="May be repeated.")] = None,
    claim_id: Annotated[list[UUID] | None, Query(description="May be repeated.")] = None,
    instance_id: Annotated[list[UUID] | None, Query(description="May be repeated.")] = None,
    until: Until = None,
) -> StreamingResponse:
    """Follow the changes of claims, in order and without a gap.

    Without `Last-Event-ID` and `after` the stream begins now, or a little earlier.
    """
    wanted = EventFilter(
        statuses=tuple(status or ()),
        hosts=tuple(host or ()),
        claim_ids=tuple(claim_id or ()),
        instance_ids=tuple(instance_id or ()),
    )
    return await _answer(caller, caller.backend.feed, wanted, last_event_id, after, until)


@router.get("/device-events", response_class=StreamingResponse, responses=responses() | _CONTENT)
async def device_events(
    caller: FleetReader,
    last_event_id: LastId = None,
    after: After = None,
    status: Annotated[list[DeviceStatus] | None, Query(description="May be repeated.")] = None,
    host: Annotated[list[Host] | None, Query(description="May be repeated.")] = None,
    until: Until = None,
) -> StreamingResponse:
    """Follow the changes of devices that no claim has caused, in order and without a gap.

    They have ids of their own. Otherwise it is as `/v1/events`.
    """
    wanted = EventFilter(statuses=tuple(status or ()), hosts=tuple(host or ()))
    return await _answer(caller, caller.backend.device_feed, wanted, last_event_id, after, until)


async def _answer(
    caller: Caller,
    feed: EventFeed,
    wanted: EventFilter,
    last_event_id: int | None,
    after: int | None,
    until: float | None,
) -> StreamingResponse:
    listening = feed.listening(None)
    news = await listening.__aenter__()  # a refusal has a status of its own only before the stream begins
    try:
        start = last_event_id if last_event_id is not None else after
        if start is None:
            start = await _in_thread(feed, EventReader.newest, feed.engine, feed.log)
    except BaseException:
        await listening.__aexit__(None, None, None)
        raise
    reader = EventReader(feed.engine, start, feed.log)

    async def stream() -> AsyncIterator[bytes]:
        try:
            async for part in _stream(caller, feed, reader, wanted, news, until):
                yield part
        except ServiceUnavailable as error:  # the client comes back, and misses nothing
            LOG.warning("a stream of events has ended: %s", error)
        finally:
            await listening.__aexit__(None, None, None)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


async def _stream(
    caller: Caller,
    feed: EventFeed,
    reader: EventReader,
    wanted: EventFilter,
    news: asyncio.Event,
    until: float | None,
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    deadline = float("inf") if until is None else loop.time() + until
    sent = loop.time()
    yield f"retry: {_RECONNECT}\n\n".encode()
    while not feed.ending.is_set() and loop.time() < deadline and await caller.is_valid():
        news.clear()
        found: list[Recorded] = await _in_thread(feed, reader.read)
        parts = [_part(feed.log.kind, each) for each in found if _fits(caller, wanted, each)]
        if parts:
            yield b"".join(parts)
            sent = loop.time()
        if len(found) == BATCH:
            continue
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), min(access.REMEMBERED, max(deadline - loop.time(), 0)))
        if loop.time() >= sent + KEEP_ALIVE:
            yield b": still here\n\n"
            sent = loop.time()


async def _in_thread(feed: EventFeed, function, *args):  # type: ignore[no-untyped-def]
    return await asyncio.get_running_loop().run_in_executor(feed.threads, function, *args)


def _fits(caller: Caller, wanted: EventFilter, recorded: Recorded) -> bool:
    if caller.project is not None and recorded.project != caller.project:
        return False
    if wanted == EventFilter():
        return True
    event: Event = recorded.event()
    return wanted.fits(event)


def _part(kind: str, recorded: Recorded) -> bytes:
    return f"id: {recorded.id}\nevent: {kind}\ndata: {recorded.body}\n\n".encode()
