"""The statements of claims, moves and releases.

The functions are in common/db/sql: claim.sql, moves.sql, release.sql.
"""

from __future__ import annotations

import sqlalchemy as sa

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.services.scheduler.packing import Packing

POOLS = sa.text("SELECT id, dev_type, vendor_id, product_id, tags FROM pools")

EXISTING_CLAIM = PreparedStatement(
    "existing_claim", "SELECT existing_claim(:claim_id::uuid, :request::jsonb)::text"
)


# A claim is not served while claims with the same requests wait in a queue.
_UNLESS_QUEUED = """
    SELECT CASE
        WHEN EXISTS (SELECT FROM waiting_claims WHERE requests = :request::jsonb - 'instance_id')
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

BEGIN_RELEASE = PreparedStatement(
    "begin_release", "SELECT begin_release(:claim_id::uuid, :resend_after::double precision)::text"
)

FORCE_RELEASE = PreparedStatement(
    "force_release",
    "SELECT force_release(:claim_id::uuid, :agent_down_after::double precision, :cause::text)::text",
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
    SELECT move_claim(
        :source_claim_id::uuid, :claim_id::uuid, :instance_id::uuid, :request::jsonb,
        :resend_after::double precision, :device_ids::bigint[], :request_indexes::integer[],
        :pool_ids::integer[], :port_ids::bigint[], :wait::boolean)::text
    """,
)

COMPLETE_MOVE = PreparedStatement(
    "complete_move", "SELECT complete_move(:claim_id::uuid, :resend_after::double precision)::text"
)

REVERT_MOVE = PreparedStatement(
    "revert_move", "SELECT revert_move(:claim_id::uuid, :resend_after::double precision)::text"
)

# A host takes claims unless an operator drained it or its agent is silent. This is a subquery per row,
# because a join might read all hosts.
OPEN_HOST = """
    (SELECT n.disabled_reason IS NULL
        AND n.last_seen > now() - make_interval(secs => :agent_down_after::double precision)
        AND (:avoid_hosts::text[] IS NULL OR NOT n.host = ANY(:avoid_hosts))
       FROM compute_nodes n WHERE n.id = {of}.compute_node_id)
"""

# The rows of the named hosts. OFFSET 0 makes PostgreSQL begin with these hosts. Without it, PostgreSQL reads
# the index of the whole fleet until it finds one of them.
_OF_NAMED_HOSTS = """
    (SELECT of_host.*
       FROM (SELECT id FROM compute_nodes WHERE host = ANY(:hosts::text[]) OFFSET 0) named
      CROSS JOIN LATERAL (
            SELECT * FROM {table}
             WHERE compute_node_id = named.id AND pool_id = pool.id AND {free} OFFSET 0) of_host)
"""

# A few ports from the top of each pool's index, and only for these what the exact order needs.
# spare_whole_ports: begin a whole port only if at least so many are left (0: always).
_PORTS_WITH_ROOM = """
    SELECT port_id
      FROM (SELECT room.*,
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
           ) candidate
     WHERE NOT whole
        OR (SELECT count(*) FROM (SELECT FROM port_pools pp
                                   WHERE pp.pool_id = ANY(:pool_ids) AND pp.whole AND pp.free > 0
                                   LIMIT :spare_whole_ports::integer) spare) >= :spare_whole_ports
     ORDER BY {ports}
     LIMIT :few
"""

_WHOLE_DEVICES = """
    SELECT id
      FROM (SELECT device.*,
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
           ) candidate
     ORDER BY {devices}
     LIMIT :few
"""


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


def claim_vfs(packing: Packing, *, on_hosts: bool) -> PreparedStatement:
    """Claim VFs of one port: on the hosts named ``hosts``, or on any."""
    ports = _PORTS_WITH_ROOM.format(
        port_pools=_of_hosts("port_pools", "free > 0", on_hosts=on_hosts),
        open_host=OPEN_HOST.format(of="pp"),
        within=packing.within,
        ports=packing.ports,
    )
    name = f"claim_vfs_{'on_hosts_' if on_hosts else ''}{packing.name}"
    return PreparedStatement(name, _CLAIM_ON_ONE_PORT.format(ports=ports))


def claim_whole(packing: Packing, *, on_hosts: bool) -> PreparedStatement:
    """Claim one PF, or one device without a tree: on the hosts named ``hosts``, or on any."""
    devices = _WHOLE_DEVICES.format(
        pci_devices=_of_hosts("pci_devices", "status = 'available'", on_hosts=on_hosts),
        open_host=OPEN_HOST.format(of="d"),
        devices_within=packing.devices_within,
        devices=packing.devices,
    )
    name = f"claim_whole_{'on_hosts_' if on_hosts else ''}{packing.name}"
    return PreparedStatement(name, _CLAIM_ON_ONE_PORT.format(ports=devices))


def _of_hosts(table: str, free: str, *, on_hosts: bool) -> str:
    return _OF_NAMED_HOSTS.format(table=table, free=free) if on_hosts else table


# The exact path begins with the hosts of the best ports and devices of each pool. Only a claim that these
# cannot serve reads everything that the fleet has free.
_NEAR_HOSTS = """
    SELECT DISTINCT near.compute_node_id
      FROM unnest(:pool_ids::integer[]) AS pool (id)
     CROSS JOIN LATERAL (
           (SELECT compute_node_id FROM port_pools
             WHERE pool_id = pool.id AND NOT whole AND free > 0 ORDER BY {within} LIMIT :few::integer)
            UNION ALL
           (SELECT compute_node_id FROM port_pools
             WHERE pool_id = pool.id AND whole AND free > 0 ORDER BY {within} LIMIT :few)
            UNION ALL
           (SELECT compute_node_id FROM pci_devices
             WHERE pool_id = pool.id AND status = 'available' AND dev_type <> 'type-VF'
             ORDER BY {devices_within} LIMIT :few)
           ) near
"""

# Every device that a claim could take, at one moment, in the order of the policy. Of devices that are alike
# (one port, one pool), only as many as the claim needs.
_FREE_DEVICES = """
    WITH free AS (
        SELECT d.*, coalesce(d.parent_id, d.id) AS port_id,
               count(*) OVER cell AS cell_free,
               count(*) OVER cell = :count::integer
                   AND count(*) OVER host > count(*) OVER cell AS last_of_cell,
               count(*) OVER alike AS free,
               row_number() OVER (alike ORDER BY d.id) AS number
          FROM {free} d
         WHERE d.pool_id = ANY(:pool_ids::integer[])
           AND {of_hosts} AND {open_host}
        WINDOW alike AS (PARTITION BY coalesce(d.parent_id, d.id), d.pool_id),
               host AS (PARTITION BY d.compute_node_id, d.pool_id),
               cell AS (PARTITION BY d.compute_node_id, d.pool_id, d.numa_node)
    ), wanted AS (
        SELECT free.*, held.held, held.held = 0 AS whole
          FROM free
         CROSS JOIN LATERAL (SELECT count(*) AS held FROM pci_devices vf
                              WHERE vf.parent_id = free.port_id
                                AND vf.status IN ('claimed', 'allocated')) held
         WHERE number <= :count
    )
    SELECT ranked.compute_node_id, ranked.id, port_id, pool_id, dev_type, numa_node, n.numa_cells
      FROM (SELECT *, row_number() OVER (ORDER BY {devices}) AS rank FROM wanted WHERE dev_type <> 'type-VF'
            UNION ALL
            SELECT *, row_number() OVER (ORDER BY {ports}, id) FROM wanted WHERE dev_type = 'type-VF') ranked
      JOIN compute_nodes n ON n.id = ranked.compute_node_id
     ORDER BY dev_type = 'type-VF', rank
"""


def near_hosts(packing: Packing) -> PreparedStatement:
    """The hosts of the devices that the policy prefers."""
    sql = _NEAR_HOSTS.format(within=packing.within, devices_within=packing.devices_within)
    return PreparedStatement(f"near_hosts_{packing.name}", sql)


# The statement looks the hosts up itself, because it must read everything as it was at one moment.
WHERE = {
    "on hosts": "d.compute_node_id = ANY(:node_ids::bigint[])",
    "on named hosts": """d.compute_node_id = ANY(ARRAY(
        SELECT id FROM compute_nodes WHERE host = ANY(:hosts::text[])))""",
    "anywhere": "true",
}


FREE = "(SELECT * FROM pci_devices WHERE status = 'available')"


def free_devices(
    packing: Packing, where: str, free: str = FREE, name: str = "free_devices"
) -> PreparedStatement:
    """Read what is free for a claim: on the hosts ``node_ids``, on those named ``hosts``, or on all."""
    sql = _FREE_DEVICES.format(
        devices=packing.devices,
        ports=packing.ports,
        of_hosts=WHERE[where],
        free=free,
        open_host=OPEN_HOST.format(of="d"),
    )
    return PreparedStatement(f"{name}_{where.replace(' ', '_')}_{packing.name}", sql)
