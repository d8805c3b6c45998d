"""Which events must be published, and how far publishing has come. ``common/db/sql/events.sql`` says how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

_LOCK = 0x6576656E74  # "event": one publisher at a time per database

# The transaction has no id yet. `settled`: every transaction below this id has ended. The functions have
# snapshots of their own, so they see what the last publisher has marked. A limit of null reads nothing.
_READ = sa.text("""
    SELECT lock.is_ours, pg_snapshot_xmin(pg_current_snapshot())::text AS settled, e.*
      FROM pg_try_advisory_xact_lock(:lock) AS lock (is_ours)
      LEFT JOIN LATERAL (
           SELECT 'claim' AS kind, * FROM unpublished_claim_events(CASE WHEN lock.is_ours THEN :limit END)
            UNION ALL
           SELECT 'device', * FROM unpublished_device_events(CASE WHEN lock.is_ours THEN :limit END)
           ) e ON true
     ORDER BY e.kind, e.id
""")

_MARK = sa.text("""
    SELECT mark_events_published(cast(:claim AS bigint[]), cast(:device AS bigint[]), cast(:settled AS xid8))
""")


class Recorded(NamedTuple):
    """An event to publish; ``body`` is its message."""

    kind: str
    id: int
    host: str | None
    to_status: str
    claim_id: UUID | None
    body: str


class Batch:
    """Events to publish. Call ``mark()`` in the same transaction after they are published."""

    def __init__(self, connection: sa.Connection, events: Sequence[Recorded], settled: str) -> None:
        self.events = events
        self._connection = connection
        self._settled = settled

    def mark(self) -> None:
        ids = {
            kind: [event.id for event in self.events if event.kind == kind] for kind in ("claim", "device")
        }
        self._connection.execute(_MARK, {**ids, "settled": self._settled})


def batch(connection: sa.Connection, limit: int) -> Batch | None:
    """The oldest ``limit`` events of each kind after the last published one, and every filled gap.

    None: another transaction publishes.
    """
    rows = connection.execute(_READ, {"lock": _LOCK, "limit": limit}).all()
    if not rows[0].is_ours:
        return None
    events = [Recorded(*row[2:]) for row in rows if row.id is not None]
    return Batch(connection, events, rows[0].settled)
