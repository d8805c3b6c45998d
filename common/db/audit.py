"""The record of what operators do: who did what to what, when and why.

An act is recorded in its own transaction, so there is no act without a record, and no record without an act.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import sqlalchemy as sa

Action = Literal[
    "force-release",
    "drain",
    "undrain",
    "remove-host",
    "recover-claim",
    "retry",
    "begin-move",
    "complete-move",
    "revert-move",
    "renew-device",
    "create-token",
    "revoke-token",
    "set-quota",
    "unset-quota",
    "enrol-host",
    "revoke-host",
    "import-host",
    "prune",
]

_RECORD = sa.text("""
    INSERT INTO audit_events (who, action, object, reason) VALUES (:who, :action, :object, :reason)
""")
_RECORD_ONCE = sa.text("SELECT record_act_once(:who, :action, :object, :reason)")
_LIST = sa.text("""
    SELECT id, at, who, action, object, reason
      FROM audit_events
     WHERE (cast(:before AS bigint) IS NULL OR id < :before)
       AND (cast(:who AS text) IS NULL OR who = :who)
       AND (cast(:action AS text) IS NULL OR action = :action)
       AND (cast(:object AS text) IS NULL OR object = :object)
     ORDER BY id DESC
     LIMIT :limit
""")


class Order(NamedTuple):
    """Who orders an act, and why. Null: the caller gave none."""

    who: str | None = None
    reason: str | None = None


NOT_SAID = Order()


class Act(NamedTuple):
    """What an operator did. ``who`` and ``reason``: null if the caller gave none."""

    id: int
    at: datetime
    who: str | None
    action: Action
    object: str
    reason: str | None


class Wanted(NamedTuple):
    """Which acts to list. Null: any."""

    who: str | None = None
    action: str | None = None
    object: str | None = None


def record(
    connection: sa.Connection, who: str | None, action: Action, object_: str, reason: str | None = None
) -> None:
    """Record an act in the transaction that does it."""
    facts = {"who": who, "action": action, "object": object_, "reason": reason}
    connection.execute(_RECORD, facts)


def record_once(
    connection: sa.Connection, who: str | None, action: Action, object_: str, reason: str | None
) -> None:
    """Record an act, unless it is what was done last to the same object: a caller may repeat a call."""
    facts = {"who": who, "action": action, "object": object_, "reason": reason}
    connection.execute(_RECORD_ONCE, facts)


def acts(connection: sa.Connection, wanted: Wanted, limit: int, before: int | None = None) -> list[Act]:
    """Acts, the newest first: those before this id."""
    facts = {**wanted._asdict(), "before": before, "limit": limit}
    return [Act(*row) for row in connection.execute(_LIST, facts)]
