"""Claim and release, each in one row-locked transaction; the caller casts the step after the commit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from common.db import outbox
from common.errors import ClaimConflict, ClaimNotFound, ClaimRefused, ServiceUnavailable
from common.rpc.messages import Claim, ClaimRequest
from services.scheduler import fleet, lookups, statements
from services.scheduler.explain import explain
from services.scheduler.fleet import Placement, Wanted
from services.scheduler.packing import Packing


@dataclass(frozen=True, slots=True)
class Settings:
    """``patience``: seconds that a claim tries while others take what it has chosen."""

    packing: Packing
    resend_after: float
    patience: float


class AnsweredMeanwhile(Exception):
    """A claim of the same id was committed while this one was at work: look it up instead."""


def claim(connection: sa.Connection, request: ClaimRequest, wanted: Wanted, settings: Settings) -> Claim:
    """Reserve what is wanted on one host, or nothing. Looks up its own outcome first, so it may run again.

    Raises :class:`ClaimRefused` only if there was a moment at which no host could serve the claim;
    :class:`ClaimConflict`; :class:`ServiceUnavailable` when patience ends; :class:`AnsweredMeanwhile`.
    """
    asked = request.model_dump(mode="json", exclude={"claim_id"})
    if _already_made(connection, request.claim_id, asked):
        return lookups.claim(connection, request.claim_id)
    _place(connection, request, wanted, asked, settings)
    outbox.put(connection, request.claim_id, 1, "attach", settings.resend_after)
    _event(connection, request.claim_id, None, "claimed", "claim")
    return lookups.claim(connection, request.claim_id)


def release(connection: sa.Connection, claim_id: UUID, resend_after: float) -> Claim:
    """Begin to give a claim's devices back; one that is ending or has ended stays as it is.

    Raises :class:`ClaimNotFound`.
    """
    row = connection.execute(statements.LOCK_CLAIM, {"claim_id": claim_id}).one_or_none()
    if row is None:
        raise ClaimNotFound(f"there is no claim {claim_id}", claim_id=str(claim_id))
    if row.status in {"claimed", "allocated"}:
        connection.execute(statements.BEGIN_RELEASE, {"claim_id": claim_id})
        outbox.put(connection, claim_id, row.step + 1, "detach", resend_after)
        _event(connection, claim_id, row.status, "releasing", "release")
    return lookups.claim(connection, claim_id)


def _place(
    connection: sa.Connection,
    request: ClaimRequest,
    wanted: Wanted,
    asked: dict[str, Any],
    settings: Settings,
) -> None:
    """Choose, lock, take; again with other devices when somebody else was faster.

    Ports that others are at work on are passed over at first. Once nothing else is left, their locks
    are waited for: passing over may change what is chosen, never the answer.
    """
    deadline = time.monotonic() + settings.patience
    busy: set[int] = set()
    wait = False
    while time.monotonic() < deadline:
        pools = fleet.suitable_pools(connection, wanted)
        free = fleet.free_devices(connection, wanted, pools)
        placement = fleet.choose(wanted, pools, free, settings.packing, busy)
        if placement is None and not busy:
            if _already_made(connection, request.claim_id, asked):
                raise AnsweredMeanwhile
            explanation = explain(connection, wanted, settings.packing)
            if explanation.served:
                continue  # room was made in this moment
            raise ClaimRefused(
                f"no host can serve this claim now: {explanation.nearest_miss}",
                explanation=explanation.model_dump(mode="json"),
            )
        if placement is None:
            busy, wait = set(), True
            continue
        savepoint = connection.begin_nested()
        if locked_by_others := _lock(connection, placement.port_ids, wait):
            busy |= locked_by_others
        elif _take(connection, request, asked, placement):
            savepoint.commit()
            return
        savepoint.rollback()  # and with it the locks
    raise ServiceUnavailable("too many claims at once want the same devices; calling again is safe")


def _lock(connection: sa.Connection, port_ids: Sequence[int], wait: bool) -> set[int]:
    """Lock these trees; answer those that others have locked, if not to ``wait`` for them."""
    statement = statements.LOCK_PORTS if wait else statements.LOCK_PORTS_UNLESS_BUSY
    return set(port_ids) - set(connection.scalars(statement, {"port_ids": list(port_ids)}))


def _take(
    connection: sa.Connection, request: ClaimRequest, asked: dict[str, Any], placement: Placement
) -> bool:
    """Take the devices of locked trees, if all of them are still free. Raises :class:`AnsweredMeanwhile`."""
    facts = {
        "claim_id": request.claim_id,
        "instance_id": request.instance_id,
        "request": asked,
        "compute_node_id": placement.compute_node_id,
        "first_device_id": placement.device_ids[0],
        "device_ids": placement.device_ids,
        "request_indexes": placement.request_indexes,
    }
    if connection.scalar(statements.ADD_CLAIM, facts) is None:
        raise AnsweredMeanwhile
    if len(connection.scalars(statements.TAKE, facts).all()) < len(placement.device_ids):
        return False
    connection.execute(statements.TAKE_PARTNERS, facts)
    connection.execute(statements.REMEMBER_HOLD, facts)
    return True


def _already_made(connection: sa.Connection, claim_id: UUID, asked: dict[str, Any]) -> bool:
    same = connection.scalar(statements.SAME_REQUEST, {"claim_id": claim_id, "request": asked})
    if same is False:
        raise ClaimConflict(
            f"claim id {claim_id} is already in use for another request: choose a new one",
            claim_id=str(claim_id),
        )
    return same is True


def _event(
    connection: sa.Connection, claim_id: UUID, from_status: str | None, to_status: str, cause: str
) -> None:
    facts = {"claim_id": claim_id, "from_status": from_status, "to_status": to_status, "cause": cause}
    connection.execute(statements.ADD_EVENT, facts)
