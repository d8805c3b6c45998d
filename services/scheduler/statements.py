"""The statements of claims, moves and releases.

The functions are in common/db/sql: claim.sql, moves.sql, release.sql.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

import sqlalchemy as sa

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.services.scheduler.packing import Packing

FEW = 8
"""Ports from the top of each index among which the policy chooses."""

POOLS = sa.text("SELECT id, dev_type, vendor_id, product_id, tags FROM pools")

EXISTING_CLAIM = PreparedStatement(
    "existing_claim", "SELECT existing_claim(:claim_id::uuid, :request::jsonb)::text"
)


# A claim is not served while claims with the same requests wait in a queue.
_UNLESS_QUEUED = """
    SELECT CASE
        WHEN EXISTS (SELECT FROM waiting_claims WHERE requests = queue_key(:request::jsonb))
        THEN refuse_behind_queue(:claim_id::uuid, :request)
        ELSE {claim} END::text
"""


CLAIM_CHOSEN_DEVICES = PreparedStatement(
    "claim_devices",
    _UNLESS_QUEUED.format(
        claim="""claim_chosen_devices(
            :claim_id, :instance_id::uuid, :request, :resend_after::double precision,
            :device_ids::bigint[], :request_indexes::integer[], :pool_ids::integer[], :port_ids::bigint[],
            :wait::boolean)"""
    ),
)

BEGIN_ATTACH = PreparedStatement(
    "begin_attach", "SELECT begin_attach(:claim_id::uuid, :resend_after::double precision)::text"
)

BEGIN_RELEASE = PreparedStatement(
    "begin_release", "SELECT begin_release(:claim_id::uuid, :resend_after::double precision)::text"
)

FORCE_RELEASE = PreparedStatement(
    "force_release",
    """
    WITH act AS (
        INSERT INTO audit_events (who, action, object, reason)
        SELECT :who::text, 'force-release', :claim_id::text, :reason::text
          FROM claims WHERE id = CAST(:claim_id AS uuid) AND live)
    SELECT force_release(CAST(:claim_id AS uuid), :agent_down_after::double precision, :cause::text)::text
    """,
)

_CLAIM_ON_ONE_PORT = _UNLESS_QUEUED.format(
    claim="""claim_on_one_port(
            :claim_id, :instance_id::uuid, :request, :resend_after::double precision,
            :count::integer, :pool_ids::integer[], ARRAY({ports}), :wait::boolean)"""
)

_CLAIM_ON_LOCKED_PORT = _UNLESS_QUEUED.format(
    claim="""claim_on_locked_port(
            :claim_id, :instance_id::uuid, :request, :resend_after::double precision,
            :count::integer, :pool_ids::integer[], ({port}))"""
)

EXISTING_MOVE = PreparedStatement(
    "existing_move", "SELECT existing_move(:source_claim_id::uuid, :claim_id::uuid, :request::jsonb)::text"
)

MOVE_CLAIM = PreparedStatement(
    "move_claim",
    """
    SELECT record_move(
        move_claim(
            :source_claim_id::uuid, :claim_id::uuid, :instance_id::uuid, :request::jsonb,
            :resend_after::double precision, :device_ids::bigint[], :request_indexes::integer[],
            :pool_ids::integer[], :port_ids::bigint[], :wait::boolean),
        :who::text, 'begin-move', :reason::text)::text
    """,
)

COMPLETE_MOVE = PreparedStatement(
    "complete_move",
    """
    SELECT record_move(
        complete_move(:claim_id::uuid, :resend_after::double precision),
        :who::text, 'complete-move', :reason::text)::text
    """,
)

REVERT_MOVE = PreparedStatement(
    "revert_move",
    """
    SELECT record_move(
        revert_move(:claim_id::uuid, :resend_after::double precision),
        :who::text, 'revert-move', :reason::text)::text
    """,
)

# A host takes claims unless an operator drained it or its agent is silent. This is a subquery per row,
# because a join might read all hosts.
OPEN_HOST = """
    (SELECT n.disabled_reason IS NULL
        AND n.last_seen > now() - make_interval(secs => :agent_down_after::double precision)
        AND (:avoid_hosts::text[] IS NULL OR NOT n.host = ANY(:avoid_hosts))
       FROM compute_nodes n WHERE n.id = {of}.compute_node_id)
"""

Where = Literal["anywhere", "few hosts", "many hosts"]
WHERE: tuple[Where, ...] = get_args(Where)
MANY_HOSTS = 200
"""Up to so many named hosts, the rows of each host are read.

For more, the index of the whole fleet is read in its order, and the rows of other hosts are passed over.
"""

# OFFSET 0 makes PostgreSQL begin with the named hosts. Without it, PostgreSQL reads the index of the whole
# fleet until it finds one of them.
_OF_FEW_HOSTS = """
    (SELECT of_host.*
       FROM (SELECT id FROM compute_nodes WHERE host = ANY(:hosts::text[]) OFFSET 0) named
      CROSS JOIN LATERAL (
            SELECT * FROM {table}
             WHERE compute_node_id = named.id AND pool_id = pool.id AND {free} OFFSET 0) of_host)
"""

# IS TRUE makes PostgreSQL hash the named hosts. Without it, PostgreSQL turns IN into a join that begins with
# them.
_AMONG_MANY_HOSTS = """
    AND ({of}.compute_node_id IN (SELECT id FROM compute_nodes WHERE host = ANY(:hosts::text[]))) IS TRUE
"""

# A few ports from the top of each pool's index, and only for these what the exact order needs.
PORTS_WITH_ROOM = """
    SELECT room.*,
           cell.free AS cell_free,
           cell.free = :count AND cell.elsewhere > 0 AS last_of_cell
      FROM unnest(:pool_ids) AS pool (id)
     CROSS JOIN (VALUES (false), (true)) AS state (whole)
     CROSS JOIN LATERAL (
           SELECT pp.* FROM {port_pools} pp
            WHERE pp.pool_id = pool.id AND pp.whole = state.whole
              AND pp.free > 0 AND pp.free >= :count
              AND {open_host}
            ORDER BY {within}
            LIMIT :few::integer
           ) room
     CROSS JOIN LATERAL (
           SELECT sum(free) FILTER (WHERE same_cell) AS free,
                  coalesce(sum(free) FILTER (WHERE NOT same_cell), 0) AS elsewhere
             FROM (SELECT free, numa_node IS NOT DISTINCT FROM room.numa_node AS same_cell
                     FROM port_pools pp
                    WHERE pp.compute_node_id = room.compute_node_id
                      AND pp.pool_id = room.pool_id AND pp.free > 0) of_host
           ) cell
"""

# spare_whole_ports: begin a whole port only if at least so many are left (0: always).
_BEST_PORTS = """
    SELECT port_id
      FROM ({ports_with_room}) candidate
     WHERE NOT whole
        OR (SELECT count(*) FROM (SELECT FROM port_pools pp
                                   WHERE pp.pool_id = ANY(:pool_ids) AND pp.whole AND pp.free > 0
                                   LIMIT :spare_whole_ports::integer) spare) >= :spare_whole_ports
     ORDER BY {ports}
     LIMIT :few
"""

# The same for PFs and for devices without a tree.
WHOLE_DEVICES = """
    SELECT device.*,
           cell.free AS cell_free,
           cell.free = 1 AND cell.elsewhere > 0 AS last_of_cell
      FROM unnest(:pool_ids) AS pool (id)
     CROSS JOIN LATERAL (
           SELECT d.id, d.vfs, d.compute_node_id, d.pool_id, d.numa_node
             FROM {pci_devices} d
            WHERE d.pool_id = pool.id
              AND d.status = 'available' AND d.dev_type <> 'type-VF'
              AND {open_host}
            ORDER BY {devices_within}
            LIMIT :few::integer
           ) device
     CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE same_cell) AS free,
                  count(*) FILTER (WHERE NOT same_cell) AS elsewhere
             FROM (SELECT numa_node IS NOT DISTINCT FROM device.numa_node AS same_cell
                     FROM pci_devices d
                    WHERE d.compute_node_id = device.compute_node_id
                      AND d.pool_id = device.pool_id AND d.status = 'available') of_host
           ) cell
"""

_BEST_DEVICES = "SELECT id FROM ({whole_devices}) candidate ORDER BY {devices} LIMIT :few"


# The most frequent case: the best port in use that no other transaction has locked, found by one step in an
# index. A port is skipped if the claim would take the last VFs of its NUMA node: then the other statements
# choose.
_PORT_IN_USE = """
    SELECT port.id
      FROM port_pools pp
      JOIN pci_devices port ON port.id = pp.port_id
     WHERE pp.pool_id = :pool_ids[1] AND NOT pp.whole AND pp.free > 0 AND pp.free >= :count
       AND (pp.free > :count OR NOT EXISTS (
            SELECT FROM port_pools of_host
             WHERE of_host.compute_node_id = pp.compute_node_id AND of_host.pool_id = pp.pool_id
               AND of_host.free > 0
            HAVING count(*) FILTER (WHERE of_host.numa_node IS NOT DISTINCT FROM pp.numa_node) = 1
               AND count(*) > 1))
       AND {open_host}
     ORDER BY {within}
     LIMIT 1
       FOR UPDATE OF port SKIP LOCKED
"""


def claim_on_port_in_use(packing: Packing) -> PreparedStatement:
    """Claim VFs of one pool from a port in use."""
    port = _PORT_IN_USE.format(within=packing.within, open_host=OPEN_HOST.format(of="pp"))
    return PreparedStatement(f"claim_beside_{packing.name}", _CLAIM_ON_LOCKED_PORT.format(port=port))


def claim_vfs(packing: Packing, where: Where) -> PreparedStatement:
    """Claim VFs of one port."""
    with_room = PORTS_WITH_ROOM.format(
        port_pools=free_ports(where), open_host=open_host("pp", where), within=packing.within
    )
    ports = _BEST_PORTS.format(ports_with_room=with_room, ports=packing.ports)
    return PreparedStatement(named("claim_vfs", where, packing), _CLAIM_ON_ONE_PORT.format(ports=ports))


def claim_whole(packing: Packing, where: Where) -> PreparedStatement:
    """Claim one PF, or one device without a tree."""
    whole = WHOLE_DEVICES.format(
        pci_devices=free_pci_devices(where),
        open_host=open_host("d", where),
        devices_within=packing.devices_within,
    )
    devices = _BEST_DEVICES.format(whole_devices=whole, devices=packing.devices)
    return PreparedStatement(named("claim_whole", where, packing), _CLAIM_ON_ONE_PORT.format(ports=devices))


def where_to_look(hosts: Collection[str] | None) -> Where:
    """How to find what the named hosts have free; None: what any host has free."""
    if hosts is None:
        return "anywhere"
    return "few hosts" if len(hosts) <= MANY_HOSTS else "many hosts"


def named(name: str, where: Where, packing: Packing) -> str:
    """The name of a statement that depends on both."""
    return f"{name}_{where.replace(' ', '_')}_{packing.name}"


def free_ports(where: Where) -> str:
    """The rows of port_pools that a statement reads."""
    few = where == "few hosts"
    return _OF_FEW_HOSTS.format(table="port_pools", free="free > 0") if few else "port_pools"


def free_pci_devices(where: Where) -> str:
    """The rows of pci_devices that a statement reads."""
    few = where == "few hosts"
    return _OF_FEW_HOSTS.format(table="pci_devices", free="status = 'available'") if few else "pci_devices"


def open_host(of: str, where: Where) -> str:
    """The condition that the host of a row takes claims, and is one of the named ones if there are many."""
    among = _AMONG_MANY_HOSTS.format(of=of) if where == "many hosts" else ""
    return OPEN_HOST.format(of=of) + among
