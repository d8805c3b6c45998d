"""Which events must be published, in which order, and how far publishing has come.

A change is recorded while its claim or device is locked, so the ids of one claim's events are in the order of
its changes. Ids of different claims are not committed in their order: a higher id may be visible before a
lower one. The publisher records such a gap and reads it again first. It gives a gap up when every transaction
has ended that was running when the gap was recorded: then nothing can fill it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

_LOCK = 0x6576656E74  # "event": one publisher at a time per database

# The transaction has no id yet when it gets the lock. `settled`: every transaction below this id has ended.
_BEGIN = sa.text("""
    SELECT kind, last_id, pg_snapshot_xmin(pg_current_snapshot())::text AS settled
      FROM event_cursors
     WHERE pg_try_advisory_xact_lock(:lock)
     ORDER BY kind
""")

_NEW = """
    WITH new AS (
        SELECT e.id FROM event_gaps g JOIN {table} e ON e.id = g.id WHERE g.kind = '{kind}'
         UNION ALL
       (SELECT id FROM {table} WHERE id > :last_id ORDER BY id LIMIT :limit)
    )
"""


def _of_new(kind: str, sql: str) -> sa.TextClause:
    """A statement that begins with the ids of the events to publish as the table ``new``."""
    return sa.text(_NEW.format(table=f"{kind}_events", kind=kind) + sql)


_CLAIMS = _of_new(
    "claim",
    """
    SELECT e.id, n.host, e.to_status, e.claim_id, json_build_object(
               'version', 1, 'id', 'claim-' || e.id, 'at', e.at, 'kind', 'claim', 'host', n.host,
               'from_status', e.from_status, 'to_status', e.to_status, 'cause', e.cause,
               'claim_id', e.claim_id, 'instance_id', c.instance_id,
               'devices', coalesce(held.devices, '[]'))::text AS body
      FROM new
      JOIN claim_events e USING (id)
      JOIN claims c ON c.id = e.claim_id
      LEFT JOIN compute_nodes n ON n.id = c.compute_node_id
     CROSS JOIN LATERAL (
           SELECT json_agg(json_build_object('address', d.address, 'dev_type', p.dev_type)
                           ORDER BY cd.request_index, d.id) AS devices
             FROM claim_devices cd
             JOIN pci_devices d ON d.id = cd.device_id
             JOIN pools p ON p.id = cd.pool_id
            WHERE cd.claim_id = e.claim_id
           ) held
     ORDER BY e.id
""",
)

_DEVICES = _of_new(
    "device",
    """
    SELECT e.id, n.host, e.to_status, NULL::uuid AS claim_id, json_build_object(
               'version', 1, 'id', 'device-' || e.id, 'at', e.at, 'kind', 'device', 'host', n.host,
               'from_status', e.from_status, 'to_status', e.to_status, 'cause', e.cause,
               'claim_id', null, 'instance_id', null,
               'devices', json_build_array(
                   json_build_object('address', d.address, 'dev_type', d.dev_type)))::text AS body
      FROM new
      JOIN device_events e USING (id)
      JOIN pci_devices d ON d.id = e.device_id
      JOIN compute_nodes n ON n.id = d.compute_node_id
     ORDER BY e.id
""",
)

_READ = {"claim": _CLAIMS, "device": _DEVICES}

# Here the transaction gets its id. It is higher than the id of every transaction that may still fill a gap.
_MARK = sa.text("""
    WITH moved AS (
        UPDATE event_cursors SET last_id = :newest WHERE kind = :kind AND last_id < :newest
    ), closed AS (
        DELETE FROM event_gaps
         WHERE kind = :kind AND (id = ANY(:published) OR horizon <= cast(:settled AS xid8))
    )
    INSERT INTO event_gaps (kind, id)
    SELECT :kind, id FROM generate_series(:last_id + 1, :newest) AS id WHERE id <> ALL(:published)
""")

_HAS_GAPS = sa.text("SELECT EXISTS (SELECT FROM event_gaps WHERE kind = :kind)")


class Recorded(NamedTuple):
    """An event to publish; ``body`` is its message."""

    kind: str
    id: int
    host: str | None
    to_status: str
    claim_id: UUID | None
    body: str


class Batch:
    """Events of one kind to publish. Call ``mark()`` in the same transaction after they are published."""

    def __init__(self, connection: sa.Connection, kind: str, last_id: int, settled: str, limit: int) -> None:
        self._connection = connection
        self._last_id = last_id
        self._facts = {"kind": kind, "last_id": last_id, "settled": settled}
        rows = connection.execute(_READ[kind], {"last_id": last_id, "limit": limit})
        self.events: Sequence[Recorded] = [Recorded(kind, *row) for row in rows]

    def mark(self) -> None:
        if self.events or self._connection.scalar(_HAS_GAPS, self._facts):
            published = [event.id for event in self.events]
            newest = max([self._last_id, *published])
            self._connection.execute(_MARK, {**self._facts, "published": published, "newest": newest})


def batches(connection: sa.Connection, limit: int) -> Iterator[Batch]:
    """A batch of each kind; none while another transaction publishes.

    A batch has the oldest ``limit`` events after the last published one, and every gap that has been filled.
    """
    for row in connection.execute(_BEGIN, {"lock": _LOCK}).all():
        yield Batch(connection, row.kind, row.last_id, row.settled, limit)
