"""The schema of events and their routing keys."""

from __future__ import annotations

import json
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from portclaim.common.errors import InvalidMessage, UnknownSchema
from portclaim.common.rpc.fields import Address, DevType, Host, Message, Text

VERSION = 1
"""Version of the schema. A version may get new fields and new statuses. A consumer ignores those that it does
not know. Any other change makes a new version."""

Kind = Literal["claim", "device"]
Status = Annotated[str, Field(pattern=r"^[a-z]+$")]

_LONGEST_KEY = 255  # bytes: AMQP 0-9-1, 4.2.5.3, short strings


class _Readable(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class EventDevice(_Readable):
    """A device of an event."""

    address: Address
    dev_type: DevType


class Event(_Readable):
    """A change of the status of a claim or of a device."""

    version: Literal[1] = Field(description="version of this schema")
    id: Text = Field(description="unique id; an event that is delivered again keeps its id")
    at: AwareDatetime = Field(
        description="start of the transaction that made the change, ISO 8601 with the offset from UTC"
    )
    kind: Kind = Field(description="`claim` or `device`: what has changed")
    host: Host | None = Field(description="the compute node; null: no host has served the claim")
    from_status: Status | None = Field(description="status before the change; null: it is new")
    to_status: Status = Field(description="status after the change")
    cause: Text = Field(description="why it changed, for people")
    claim_id: UUID | None = Field(description="the claim; null: the event is a device's")
    instance_id: UUID | None = Field(description="the instance of the claim; null: the event is a device's")
    devices: list[EventDevice] = Field(
        description="the devices of the claim, or the device that changed; each with `address` and `dev_type`"
    )

    @property
    def routing_key(self) -> str:
        return routing_key(self.kind, self.to_status, self.host)


class EventFilter(Message):
    """Which events a consumer gets: those that match every field. An empty field matches all events.

    Example: ``EventFilter(kinds=("claim",), statuses=("allocated", "failed"))``
    """

    kinds: tuple[Kind, ...] = ()
    statuses: tuple[Status, ...] = ()
    hosts: tuple[Host, ...] = ()
    claim_ids: tuple[UUID, ...] = ()
    instance_ids: tuple[UUID, ...] = ()

    def bindings(self) -> list[str]:
        """The binding keys of a queue. The broker then sends every matching event, and few others."""
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
    """For example ``claim.released.compute-7.example``. A dot in a host's name separates words too."""
    return f"{kind}.{status}.{'~' if host is None else host}"[:_LONGEST_KEY]


def claim_key(claim_id: UUID | str) -> str:
    """The second routing key of every event of a claim, for example ``claim-id.6f1b4f6e-…-1c3f4f2b7a10``."""
    return f"claim-id.{claim_id}"


def read(body: str | bytes) -> Event:
    """The event in a message. Raises :class:`UnknownSchema`, and :class:`InvalidMessage` if it has none."""
    try:
        return Event.model_validate_json(body)
    except ValidationError as error:
        if (version := _version(body)) not in {None, VERSION}:
            raise UnknownSchema(
                f"an event has version {version} of the schema, but this program can only read version "
                f"{VERSION}. Upgrade this program",
                version=version,
            ) from None
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'event'}: {fault['msg']}" for fault in error.errors()[:5]
        )
        raise InvalidMessage(f"the message is not an event: {faults}") from None


def _version(body: str | bytes) -> int | None:
    try:
        said = json.loads(body)
    except ValueError:  # not even text, or not JSON
        return None
    version = said.get("version") if isinstance(said, dict) else None
    return version if isinstance(version, int) else None
