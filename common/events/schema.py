"""What an event says, and under which routing key; docs/events.md is the page about it."""

from __future__ import annotations

import json
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from portclaim.common.errors import InvalidMessage, UnknownSchema
from portclaim.common.rpc.fields import Address, DevType, Host, Message, Text

VERSION = 1
"""Of the schema. Fields and statuses may be added to a version, so that a reader passes over what it does not
know; anything else is a new one."""

Kind = Literal["claim", "device"]
Status = Annotated[str, Field(pattern=r"^[a-z]+$")]

_LONGEST_KEY = 255  # bytes: AMQP 0-9-1, 4.2.5.3, short strings


class _Readable(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class EventDevice(_Readable):
    """A device that an event is about."""

    address: Address
    dev_type: DevType


class Event(_Readable):
    """A claim or a device was something and became something else."""

    version: Literal[1] = Field(description="of this schema")
    id: Text = Field(description="the same whenever the event is delivered again, and no other event's")
    at: AwareDatetime = Field(description="when the change began, ISO 8601 with its offset from UTC")
    kind: Kind = Field(description="`claim` or `device`: what has changed")
    host: Host | None = Field(description="the compute node; null: there is none yet")
    from_status: Status | None = Field(description="what it was; null: it is new")
    to_status: Status = Field(description="what it became")
    cause: Text = Field(description="what made it so, for people")
    claim_id: UUID | None = Field(description="the claim; null: the event is a device's")
    instance_id: UUID | None = Field(description="whose claim it is; null: the event is a device's")
    devices: list[EventDevice] = Field(
        description="a claim's devices, or the one that changed; each with `address` and `dev_type`"
    )

    @property
    def routing_key(self) -> str:
        return routing_key(self.kind, self.to_status, self.host)


class EventFilter(Message):
    """Which events are wanted: those that fit each of these. What is empty fits any."""

    kinds: tuple[Kind, ...] = ()
    statuses: tuple[Status, ...] = ()
    hosts: tuple[Host, ...] = ()
    claim_ids: tuple[UUID, ...] = ()
    instance_ids: tuple[UUID, ...] = ()

    def bindings(self) -> list[str]:
        """What to bind a queue with: the broker then sends all that fits, and not much more."""
        return [
            routing_key(kind, status, host)
            for kind in self.kinds or ["*"]
            for status in self.statuses or ["*"]
            for host in self.hosts or ["#"]
        ]

    def fits(self, event: Event) -> bool:
        return all(
            not wanted or value in wanted
            for wanted, value in (
                (self.kinds, event.kind),
                (self.statuses, event.to_status),
                (self.hosts, event.host),
                (self.claim_ids, event.claim_id),
                (self.instance_ids, event.instance_id),
            )
        )


def routing_key(kind: str, status: str, host: str | None) -> str:
    """``claim.released.compute-7.example``: the dots of a host's name divide words like any others."""
    return f"{kind}.{status}.{'~' if host is None else host}"[:_LONGEST_KEY]


def read(body: str | bytes) -> Event:
    """The event in a message. Raises :class:`UnknownSchema`, or :class:`InvalidMessage` for what is none."""
    try:
        return Event.model_validate_json(body)
    except ValidationError as error:
        if (version := _version(body)) not in {None, VERSION}:
            raise UnknownSchema(
                f"an event of version {version} of the schema; this program reads version {VERSION}: "
                "bring it up to date",
                version=version,
            ) from None
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'event'}: {fault['msg']}" for fault in error.errors()[:5]
        )
        raise InvalidMessage(f"not an event: {faults}") from None


def _version(body: str | bytes) -> int | None:
    try:
        said = json.loads(body)
    except ValueError:  # not even text, or not JSON
        return None
    version = said.get("version") if isinstance(said, dict) else None
    return version if isinstance(version, int) else None
