"""Events over HTTP: the API has a stream for claims and one for devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, get_args

from portclaim.cli.http_client import HttpScheduler
from portclaim.common.errors import InvalidRequest, PortclaimError
from portclaim.common.events.schema import EventFilter
from portclaim.common.rpc.fields import ClaimStatus, DeviceStatus


def events_over_http(http: HttpScheduler, wanted: EventFilter) -> Iterator[str]:
    """The events that fit, as JSON, as they happen.

    Without ``kinds``, a token that may not see devices gets the events of claims alone.
    """
    ids: dict[str, Any] = {
        "claim_id": [str(each) for each in wanted.claim_ids],
        "instance_id": [str(each) for each in wanted.instance_ids],
    }
    streams = []
    if (statuses := _of_kind("claim", get_args(ClaimStatus), wanted)) is not None:
        streams.append(http.events(status=statuses, host=wanted.hosts, **ids))
    if (statuses := _of_kind("device", get_args(DeviceStatus), wanted)) is not None and not any(ids.values()):
        devices = http.events("/v1/device-events", status=statuses, host=wanted.hosts)
        streams.append(devices if wanted.kinds else _if_allowed(devices))
    return _merged(streams)


def _of_kind(kind: str, known: Sequence[str], wanted: EventFilter) -> list[str] | None:
    """The wanted statuses of the kind; none: all. None: no event of the kind fits."""
    found = [status for status in wanted.statuses if status in known]
    return None if (wanted.kinds and kind not in wanted.kinds) or (wanted.statuses and not found) else found


def _if_allowed(stream: Iterator[str]) -> Iterator[str]:
    try:
        yield from stream
    except InvalidRequest:  # a token for one project
        return


def _merged(streams: Sequence[Iterator[str]]) -> Iterator[str]:
    """All of them as they come. Raises the first error of one."""
    said: SimpleQueue[str | PortclaimError] = SimpleQueue()

    def follow(stream: Iterator[str]) -> None:
        try:
            for text in stream:
                said.put(text)
        except PortclaimError as error:
            said.put(error)

    for stream in streams:
        Thread(target=follow, args=(stream,), daemon=True).start()
    while streams:
        if isinstance(text := said.get(), PortclaimError):
            raise text
        yield text
