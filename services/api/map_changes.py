"""Which ports have changed: those of the events that were committed since the last look.

Ids are not committed in their order. A missing id is looked for again until every transaction that may still
commit it has ended. Other than a reader of events, the map need not wait for it: it reads what is true now.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

BATCH = 2000
"""The most events of each kind that one look answers."""

_MOST_GAPS = 1000
_BACK = 200  # ids before the newest one, among which a lower one may still be missing

_NEW = sa.text("""
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS oldest,
           pg_snapshot_xmax(pg_current_snapshot())::text AS next,
           new.*
      FROM (SELECT) AS always
      LEFT JOIN LATERAL (
           (SELECT 'claim' AS kind, id, claim_id, NULL::bigint AS device_id,
                   'waiting' IN (from_status, to_status) AS waited
              FROM claim_events WHERE id > :claim ORDER BY id LIMIT :batch)
            UNION ALL
            SELECT 'claim', id, claim_id, NULL, 'waiting' IN (from_status, to_status)
              FROM claim_events WHERE id = ANY(:claim_gaps)
            UNION ALL
           (SELECT 'device', id, NULL, device_id, false
              FROM device_events WHERE id > :device ORDER BY id LIMIT :batch)
            UNION ALL
            SELECT 'device', id, NULL, device_id, false
              FROM device_events WHERE id = ANY(:device_gaps)) new ON true
""")
_NEWEST = sa.text("""
    SELECT (SELECT coalesce(max(id), 0) FROM claim_events), (SELECT coalesce(max(id), 0) FROM device_events)
""")
_PORTS = sa.text("""
    SELECT coalesce(d.parent_id, d.id)
      FROM claim_devices cd JOIN pci_devices d ON d.id = cd.device_id
     WHERE cd.claim_id = ANY(:claim_ids)
     UNION
    SELECT coalesce(parent_id, id) FROM pci_devices WHERE id = ANY(:device_ids)
""")


class Changed(NamedTuple):
    """What has changed."""

    port_ids: set[int]
    claim_ids: set[UUID]
    queues: bool
    """Whether a claim has begun or ceased to wait."""
    more: bool
    """Whether there may be more at once."""


class _Cursor:
    """How far the events of one kind are read."""

    def __init__(self, last: int) -> None:
        self.last = max(last, 0)
        self.gaps: dict[int, int] = {}  # missing ids, and the first transaction that cannot commit them

    def take(self, ids: list[int], oldest: int, following: int) -> None:
        self.gaps = {id_: until for id_, until in self.gaps.items() if until > oldest and id_ not in ids}
        new = sorted(id_ for id_ in ids if id_ > self.last)
        if new:
            missing = set(range(max(self.last + 1, new[-1] - _MOST_GAPS), new[-1])).difference(new)
            self.gaps |= dict.fromkeys(missing, following)
            self.last = new[-1]


class Changes:
    """Looks for changes since it was made. For one thread at a time."""

    def __init__(self, connection: sa.Connection) -> None:
        claim, device = connection.execute(_NEWEST).one()
        self._claims, self._devices = _Cursor(claim - _BACK), _Cursor(device - _BACK)

    def look(self, connection: sa.Connection) -> Changed:
        """The changes since the last look."""
        rows = connection.execute(
            _NEW,
            {
                "claim": self._claims.last,
                "claim_gaps": list(self._claims.gaps),
                "device": self._devices.last,
                "device_gaps": list(self._devices.gaps),
                "batch": BATCH,
            },
        ).all()
        claims = [row for row in rows if row.kind == "claim"]
        devices = [row for row in rows if row.kind == "device"]
        for cursor, found in ((self._claims, claims), (self._devices, devices)):
            cursor.take([row.id for row in found], int(rows[0].oldest), int(rows[0].next))
        claim_ids = {row.claim_id for row in claims}
        return Changed(
            self._ports(connection, claim_ids, {row.device_id for row in devices}),
            claim_ids,
            queues=any(row.waited for row in claims),
            more=max(len(claims), len(devices)) >= BATCH,
        )

    @staticmethod
    def _ports(connection: sa.Connection, claim_ids: set[UUID], device_ids: set[int]) -> set[int]:
        if not claim_ids and not device_ids:
            return set()
        facts = {"claim_ids": list(claim_ids), "device_ids": list(device_ids)}
        return set(connection.scalars(_PORTS, facts))
