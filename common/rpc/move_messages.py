"""Moving an instance's devices to another host: what to move, and how a move stands."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from portclaim.common.rpc.claim_messages import Claim, DeviceRequest
from portclaim.common.rpc.fields import Host, Message, MoveStatus, Number, Text, Uuid


class MoveRequest(Message):
    """Claim for the instance of an allocated claim on another host, with the id ``claim_id``.

    ``extra_specs`` and ``requests`` are those of the source, where they are None; a resize names others.
    Hosts and NUMA nodes are never the source's: see
    :class:`~portclaim.common.rpc.claim_messages.ClaimRequest`. The host of the source is avoided in any case.
    """

    claim_id: Uuid
    source_claim_id: Uuid
    extra_specs: dict[Text, Text] | None = None
    requests: Annotated[list[DeviceRequest], Field(max_length=16)] | None = None
    hosts: Annotated[list[Host], Field(min_length=1)] | None = None
    avoid_hosts: list[Host] = Field(default_factory=list)
    numa_cells: list[Number] = Field(default_factory=list)


class Move(Message):
    """A move as it stands, with both of its claims. ``reason`` says what ended it, if no caller did."""

    status: MoveStatus
    reason: str | None
    begun_at: str
    updated_at: str
    source: Claim
    target: Claim
