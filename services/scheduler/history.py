"""Read what happened to a claim, a host or a device."""

from __future__ import annotations

from typing import TypeVar

import sqlalchemy as sa

from portclaim.common.errors import ClaimNotFound, InvalidRequest, UnknownHost
from portclaim.common.rpc.fields import Message
from portclaim.common.rpc.history_messages import Change, History, HistoryFilter, Holding
from portclaim.common.rpc.operator_messages import AwaitedStep
from portclaim.services.scheduler import history_statements
from portclaim.services.scheduler.lookups import as_fields

R = TypeVar("R", bound=Message)


def history(connection: sa.Connection, wanted: HistoryFilter, agent_down_after: float) -> History:
    """Holdings, changes and unanswered steps.

    Raises :class:`ClaimNotFound`, :class:`UnknownHost`, and :class:`InvalidRequest` if the host has no such
    device.
    """
    facts = {**wanted.model_dump(), "agent_down_after": agent_down_after}
    of_claim = wanted.claim_id is not None
    found = connection.execute(
        history_statements.CLAIM if of_claim else history_statements.HOST, facts
    ).first()
    if found is None and of_claim:
        raise ClaimNotFound(f"there is no claim {wanted.claim_id}", claim_id=str(wanted.claim_id))
    if found is None:
        raise UnknownHost(f"no agent has ever reported for host {wanted.host}", host=wanted.host)
    if not of_claim and not found.has_device:
        raise InvalidRequest(f"host {wanted.host} has no device {wanted.address}")

    def read(kind: type[R], statement: sa.TextClause) -> list[R]:
        rows = connection.execute(statement, facts).mappings()
        return [kind.model_validate(as_fields(row)) for row in rows]

    holdings = history_statements.HOLDINGS_OF_HOST
    changes = history_statements.CHANGES_OF_HOST
    if of_claim:
        holdings, changes = history_statements.HOLDINGS_OF_CLAIM, history_statements.CHANGES_OF_CLAIM
    return History(
        holdings=read(Holding, holdings),
        changes=read(Change, changes),
        steps=read(AwaitedStep, history_statements.STEPS),
        host_is_silent=found.is_silent,
    )
