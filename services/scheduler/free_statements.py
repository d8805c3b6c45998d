"""The statements that read what is free for a claim that is matched exactly."""

from __future__ import annotations

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.statements import (
    OPEN_HOST,
    Where,
    free_pci_devices,
    free_ports,
    named,
    open_host,
)

# The hosts of the best ports and devices of each pool, in one list for each part of an index.
NEAR = """
      FROM unnest(:pool_ids::integer[]) AS pool (id)
     CROSS JOIN LATERAL (
           (SELECT 'in use' AS list, pp.compute_node_id, row_number() OVER (ORDER BY {within}) AS place
              FROM {port_pools} pp
             WHERE pp.pool_id = pool.id AND NOT pp.whole AND pp.free > 0 AND {open_port}
             ORDER BY {within} LIMIT :few::integer)
            UNION ALL
           (SELECT 'whole', pp.compute_node_id, row_number() OVER (ORDER BY {within})
              FROM {port_pools} pp
             WHERE pp.pool_id = pool.id AND pp.whole AND pp.free > 0 AND {open_port}
             ORDER BY {within} LIMIT :few)
            UNION ALL
           (SELECT 'devices', d.compute_node_id, row_number() OVER (ORDER BY {devices_within})
              FROM {pci_devices} d
             WHERE d.pool_id = pool.id AND d.status = 'available' AND d.dev_type <> 'type-VF'
               AND {open_device}
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


def near_hosts(packing: Packing, where: Where) -> PreparedStatement:
    """The hosts of the devices that the policy prefers.

    The exact path begins with these. Only a claim that they cannot serve reads everything that is free.
    """
    near = NEAR.format(
        port_pools=free_ports(where),
        pci_devices=free_pci_devices(where),
        open_port=open_host("pp", where),
        open_device=open_host("d", where),
        within=packing.within,
        devices_within=packing.devices_within,
    )
    return PreparedStatement(
        named("near_hosts", where, packing), f"SELECT DISTINCT near.compute_node_id {near}"
    )


# The statement looks the hosts up itself, because it must read everything as it was at one moment.
ON_HOSTS = {
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
        of_hosts=ON_HOSTS[where],
        free=free,
        open_host=OPEN_HOST.format(of="d"),
    )
    return PreparedStatement(f"{name}_{where.replace(' ', '_')}_{packing.name}", sql)
