"""The rows of the map: the fleet's hosts, and each port with the statuses of its VFs in one short text."""

from __future__ import annotations

from collections.abc import Collection
from itertools import groupby
from typing import Any, NamedTuple

import sqlalchemy as sa

# A device's letter says whether a claim can have it, and if not, why. A tree partner is held: u.
_LETTER = """
    CASE d.status WHEN 'available' THEN 'f' WHEN 'claimed' THEN 'c' WHEN 'allocated' THEN 'h'
    ELSE CASE WHEN NOT d.offered THEN 'n'
              WHEN d.drained_reason IS NOT NULL THEN 'd'
              WHEN d.reserved_for IS NOT NULL THEN 'r'
              WHEN d.unusable_reason IS NOT NULL THEN 'x'
              WHEN {partner} THEN 'u'
              WHEN NOT d.present THEN 'x'
              ELSE 'u' END END
"""

_PORTS = """
    SELECT d.id, d.compute_node_id, d.address, d.numa_node, d.pool_id, {letter} AS letter, d.claim_id,
           d.drained_reason, d.reserved_for, d.unusable_reason, d.present, vfs.pool_ids, vfs.letters
      FROM pci_devices d
     CROSS JOIN LATERAL (SELECT d.id, d.claim_id) port
     CROSS JOIN LATERAL (
           SELECT array_agg(DISTINCT vf.pool_id) AS pool_ids,
                  string_agg(vf.letter, '' ORDER BY vf.address COLLATE "C") AS letters
             FROM (SELECT d.pool_id, d.address, {vf_letter} AS letter
                     FROM pci_devices d
                    WHERE d.parent_id = port.id AND d.status <> 'removed') vf) vfs
     WHERE d.parent_id IS NULL AND d.status <> 'removed' AND {which}
     ORDER BY d.compute_node_id, d.address COLLATE "C"
"""


def _ports(which: str) -> sa.TextClause:
    letter = _LETTER.format(partner="false")
    vf_letter = _LETTER.format(partner="port.claim_id IS NOT NULL")
    return sa.text(_PORTS.format(letter=letter, vf_letter=vf_letter, which=which))


_ALL_PORTS = _ports("true")
_SOME_PORTS = _ports("d.id = ANY(:ids)")
_HOSTS = sa.text("""
    SELECT id, host, disabled_reason,
           last_seen < now() - make_interval(secs => :agent_down_after) AS is_silent
      FROM compute_nodes
     ORDER BY id
""")
_POOLS = sa.text("SELECT id, dev_type, vendor_id, product_id, tags FROM pools ORDER BY id")
_RESERVED = sa.text("""
    SELECT DISTINCT coalesce(parent_id, id), reserved_for FROM pci_devices WHERE reserved_for IS NOT NULL
""")

_COUNTS = sa.text("""
    SELECT (SELECT count(*) FROM (SELECT FROM claims WHERE status = 'waiting' LIMIT :most) read) AS waiting,
           (SELECT count(*)
              FROM (SELECT FROM outbox
                     WHERE created_at < now() - make_interval(secs => :overdue) LIMIT :most) read) AS steps
""")
_MOST = 1000
OVERDUE = 30.0
"""Seconds after which an unanswered step is trouble."""

PortRow = tuple[Any, ...]
HostRow = tuple[int, str, str | None, bool]


class Reserved(NamedTuple):
    """A port, and the waiting claim that it is reserved for."""

    port_id: int
    claim_id: str


def ports(connection: sa.Connection, ids: Collection[int] | None) -> dict[int, PortRow]:
    """The ports with these ids, or all, by id.

    Each is ``(id, host id, address, NUMA node, pools, letter, letters of its VFs, claim, notes)``. A run of
    equal letters is written with its length: ``60f4h``. ``claim`` holds the port whole. ``notes`` say why it
    cannot be claimed, by ``drained``, ``reserved``, ``unusable`` and ``missing``; None: nothing to say.
    """
    if ids is None:
        connection.execute(sa.text("SET LOCAL enable_seqscan = on"))
        found = connection.execute(_ALL_PORTS)
    else:
        found = connection.execute(_SOME_PORTS, {"ids": list(ids)})
    return {row.id: _port(row) for row in found}


def hosts(connection: sa.Connection, agent_down_after: float) -> dict[int, HostRow]:
    """All hosts by id: ``(id, name, why it is drained, whether its agent is silent)``."""
    found = connection.execute(_HOSTS, {"agent_down_after": agent_down_after})
    return {row.id: (row.id, row.host, row.disabled_reason, row.is_silent) for row in found}


def pools(connection: sa.Connection) -> dict[int, dict[str, Any]]:
    """What the devices of each pool have in common."""
    return {row.id: row._asdict() for row in connection.execute(_POOLS)}


def reserved(connection: sa.Connection) -> set[Reserved]:
    """The ports that are reserved for waiting claims."""
    return {Reserved(port_id, str(claim_id)) for port_id, claim_id in connection.execute(_RESERVED)}


def counts(connection: sa.Connection) -> dict[str, int]:
    """How many claims wait, and how many steps are overdue. 1000: so many or more."""
    found = connection.execute(_COUNTS, {"most": _MOST, "overdue": OVERDUE})
    return dict(found.mappings().one())


def _port(row: sa.Row[Any]) -> PortRow:
    notes = {
        "drained": row.drained_reason,
        "reserved": None if row.reserved_for is None else str(row.reserved_for),
        "unusable": row.unusable_reason,
        "missing": None if row.present else True,
    }
    return (
        row.id,
        row.compute_node_id,
        row.address,
        row.numa_node,
        [row.pool_id, *(row.pool_ids or ())],
        row.letter,
        _runs(row.letters or ""),
        None if row.claim_id is None else str(row.claim_id),
        {name: note for name, note in notes.items() if note is not None} or None,
    )


def _runs(letters: str) -> str:
    return "".join(f"{len(list(run))}{letter}" for letter, run in groupby(letters))
