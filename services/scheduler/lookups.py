"""Read one claim, or pages of claims, devices, hosts, queues and steps as operators see them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple, TypeVar
from uuid import UUID

import sqlalchemy as sa
from pydantic import AwareDatetime, Field

from portclaim.common.errors import ClaimNotFound
from portclaim.common.rpc import versions
from portclaim.common.rpc.claim_messages import Claim, Device, DeviceFilter, Devices
from portclaim.common.rpc.fields import Message, Text, Uuid
from portclaim.common.rpc.operator_messages import (
    AwaitedStep,
    AwaitedSteps,
    ClaimFilter,
    Claims,
    HostFilter,
    Hosts,
    HostSummary,
    ListedClaim,
    StepFilter,
    WaitingClaim,
    WaitingClaims,
    WaitingFilter,
)
from portclaim.common.rpc.refusal_messages import Refusal, RefusalFilter, Refusals
from portclaim.services.scheduler import cursor, list_statements

R = TypeVar("R", bound=Message)

_CLAIM = sa.text("""
    SELECT (claim_as_json(:claim_id)::jsonb || jsonb_build_object('move', (
            SELECT jsonb_build_object('source_claim_id', source_claim_id, 'target_claim_id', target_claim_id,
                                      'status', status, 'reason', reason)
              FROM claim_moves
             WHERE cast(:claim_id AS uuid) IN (source_claim_id, target_claim_id)
             ORDER BY begun_at DESC, live DESC LIMIT 1)))::text
""")

_NOT_ENDED = ["waiting", "claimed", "prepared", "allocated", "releasing"]
_ENDED = {"released", "failed", "expired"}
_NOT_REMOVED = ["available", "claimed", "allocated", "unclaimable", "unavailable"]

Time = Annotated[AwareDatetime, Field(strict=False)]
Number = Annotated[int, Field(ge=0, lt=2**63)]


class _PlaceOfDevice(Message):
    host: Text
    port: Text
    is_vf: bool
    address: Text


class _PlaceOfHost(Message):
    host: Text


class _PlaceOfClaim(Message):
    created_at: Time
    claim_id: Uuid


class _PlaceOfStep(_PlaceOfClaim):
    step: Annotated[int, Field(ge=0, lt=2**31)]


class _PlaceInQueues(Message):
    arrival: Number


class _PlaceOfRefusal(Message):
    at: Time
    claim_id: Uuid
    of_project: Text


class _List(NamedTuple):
    """A list: its name, and the columns that say where a row stands in its order."""

    name: str
    place: type[Message]


class _Page(NamedTuple):
    rows: list[Mapping[Any, Any]]
    more: bool
    after: str | None

    def of(self, kind: type[R]) -> list[R]:
        """The rows as messages."""
        rows = ({name: row[name] for name in kind.model_fields} for row in self.rows)
        return [kind.model_validate(row, extra="ignore") for row in rows]


_DEVICES = _List("devices", _PlaceOfDevice)
_HOSTS = _List("hosts", _PlaceOfHost)
_CLAIMS = _List("claims", _PlaceOfClaim)
_STEPS = _List("awaited_steps", _PlaceOfStep)
_WAITING = _List("waiting", _PlaceInQueues)
_REFUSALS = _List("refusals", _PlaceOfRefusal)


def claim(connection: sa.Connection, claim_id: UUID) -> Claim:
    """The claim as it stands, with its latest move. Raises :class:`ClaimNotFound`."""
    found = connection.scalar(_CLAIM, {"claim_id": claim_id})
    if found is None:
        raise ClaimNotFound(f"there is no claim {claim_id}", claim_id=str(claim_id))
    return Claim.model_validate_json(found, extra="ignore")


def devices(connection: sa.Connection, wanted: DeviceFilter) -> Devices:
    """The devices that fit the filter; removed ones only if asked for by that status."""
    # An available device of a drained host is unavailable.
    statuses = {None: _NOT_REMOVED, "unavailable": ["unavailable", "available"]}
    facts = {"statuses": statuses.get(wanted.status, [wanted.status])}
    page = _read(connection, _DEVICES, list_statements.DEVICES, wanted, facts)
    return Devices(devices=page.of(Device), more=page.more, after=page.after)


def hosts(connection: sa.Connection, wanted: HostFilter, agent_down_after: float) -> Hosts:
    """The hosts in the order of their names, those included that have been removed."""
    page = _read(connection, _HOSTS, list_statements.HOSTS, wanted, {"agent_down_after": agent_down_after})
    return Hosts(hosts=page.of(HostSummary), more=page.more, after=page.after)


def claims(connection: sa.Connection, wanted: ClaimFilter) -> Claims:
    """The claims that fit the filter, the oldest first; ended ones only if asked for by their statuses."""
    statuses = _NOT_ENDED if wanted.statuses is None else sorted(set(wanted.statuses))
    statement = list_statements.claims(
        host=wanted.host is not None,
        instance=wanted.instance_id is not None,
        project=wanted.project is not None,
        ended=not _ENDED.isdisjoint(statuses),
    )
    page = _read(connection, _CLAIMS, statement, wanted, {"statuses": statuses})
    return Claims(claims=page.of(ListedClaim), more=page.more, after=page.after)


def awaited_steps(connection: sa.Connection, wanted: StepFilter) -> AwaitedSteps:
    """The steps that agents have not answered, the longest awaited first."""
    page = _read(connection, _STEPS, list_statements.AWAITED_STEPS, wanted)
    return AwaitedSteps(steps=page.of(AwaitedStep), more=page.more, after=page.after)


def waiting(connection: sa.Connection, wanted: WaitingFilter) -> WaitingClaims:
    """The claims that wait, those that came first before the others."""
    page = _read(connection, _WAITING, list_statements.WAITING, wanted)
    return WaitingClaims(claims=page.of(WaitingClaim), more=page.more, after=page.after)


def refusals(connection: sa.Connection, wanted: RefusalFilter) -> Refusals:
    """The claims that were refused, as far as they are kept, the newest first."""
    page = _read(connection, _REFUSALS, list_statements.REFUSALS, wanted)
    return Refusals(refusals=page.of(Refusal), more=page.more, after=page.after)


def _read(
    connection: sa.Connection,
    of: _List,
    statement: sa.TextClause,
    wanted: Message,
    facts: Mapping[str, Any] | None = None,
) -> _Page:
    """A page of a list. Raises :class:`InvalidRequest` for a cursor of another list or filter."""
    fields = wanted.model_dump()
    limit, after = fields.pop("limit"), fields.pop("after")
    asked = {**versions.to_send(wanted)[0], "list": of.name, "limit": None, "after": None}
    places = dict.fromkeys(of.place.model_fields)
    if after is not None:
        places = cursor.read_place(asked, after, of.place, of.name).model_dump()
    bounds = {f"after_{name}": value for name, value in places.items()}
    found = connection.execute(statement, {**fields, **bounds, **(facts or {}), "limit": limit}).mappings()
    rows: list[Mapping[Any, Any]] = [as_fields(row) for row in found]
    if len(rows) <= limit:
        return _Page(rows, more=False, after=None)
    shown = rows[:limit]
    last = of.place.model_validate({name: shown[-1][name] for name in of.place.model_fields})
    return _Page(shown, more=True, after=cursor.write_place(asked, last))


def as_fields(row: Mapping[Any, Any]) -> dict[Any, Any]:
    """A row as a message has it: times are text in ISO 8601."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
