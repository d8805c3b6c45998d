"""The statements that find candidates: the hosts that come next, and what these have free.

None of them locks a row.
"""

from __future__ import annotations

from functools import lru_cache

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.services.scheduler.free_statements import NEAR
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.statements import (
    PORTS_WITH_ROOM,
    WHOLE_DEVICES,
    Where,
    free_pci_devices,
    free_ports,
    named,
    open_host,
)

SITUATION = PreparedStatement(
    "situation",
    """
    SELECT (SELECT count(*) FROM waiting_claims WHERE requests = queue_key(:request::jsonb)),
           (SELECT coalesce(json_agg(json_build_array(id, dev_type, vendor_id, product_id, tags)), '[]')
              FROM pools)
    """,
)
"""The length of the queue of claims with the same requests, and all pools."""

# A search passes over the hosts that it has seen. PostgreSQL hashes the subquery of NOT IN once, so this is
# cheap for thousands of hosts.
_NOT_SEEN = " AND {of}.compute_node_id NOT IN (SELECT unnest(:seen::bigint[]))"

# beside: a claim takes the first port in use before all others, as claim_on_port_in_use does.
_NEXT_PORTS = """
    SELECT compute_node_id, pool_id, whole,
           row_number() OVER (ORDER BY NOT is_beside, CASE WHEN is_beside THEN place END, {ports})
      FROM (SELECT *, NOT whole AND NOT last_of_cell AND :beside::boolean AS is_beside,
                   row_number() OVER (PARTITION BY pool_id, whole ORDER BY {within}) AS place
              FROM ({ports_with_room}) best) candidate
     WHERE :pool_ids::integer[] IS NOT NULL AND :count::integer > 0
     ORDER BY place
"""

_NEXT_DEVICES = """
    SELECT compute_node_id, pool_id, true, row_number() OVER (ORDER BY {devices})
      FROM ({whole_devices}) candidate
     WHERE :pool_ids::integer[] IS NOT NULL
     ORDER BY row_number() OVER (PARTITION BY pool_id ORDER BY {devices_within})
"""

_NEXT_NEAR = "SELECT near.compute_node_id, pool.id, near.list, 0 {near} ORDER BY near.place"

FREE_COUNTS = PreparedStatement(
    "free_counts",
    """
    SELECT compute_node_id, pool_id, sum(free)::bigint
      FROM port_pools
     WHERE compute_node_id = ANY(:node_ids::bigint[]) AND pool_id = ANY(:pool_ids::integer[]) AND free > 0
     GROUP BY compute_node_id, pool_id
     UNION ALL
    SELECT compute_node_id, pool_id, count(*)
      FROM pci_devices
     WHERE compute_node_id = ANY(:node_ids) AND pool_id = ANY(:whole_pool_ids::integer[])
       AND status = 'available'
     GROUP BY compute_node_id, pool_id
    """,
)
"""How many devices of each pool a host has free."""

# What the exact path reads, for some hosts, from the counts in port_pools. place: where the device stands
# among those that a claim of one port tries. The last columns: what its host has free of all ports that fit.
_FREE_ON_HOSTS = """
    WITH room AS (
        SELECT pp.*,
               sum(free) OVER cell AS cell_free,
               sum(free) OVER cell = :count::integer
                   AND sum(free) OVER host > sum(free) OVER cell AS last_of_cell,
               row_number() OVER (PARTITION BY compute_node_id, pool_id, whole, free >= :count
                                  ORDER BY {within}) AS place
          FROM port_pools pp
         WHERE compute_node_id = ANY(:node_ids::bigint[]) AND pool_id = ANY(:pool_ids::integer[]) AND free > 0
        WINDOW host AS (PARTITION BY compute_node_id, pool_id),
               cell AS (PARTITION BY compute_node_id, pool_id, numa_node)
    ), vf AS (
        SELECT room.compute_node_id, room.port_id, room.pool_id, room.free, room.held, room.whole,
               room.cell_free, room.last_of_cell, room.place, vf.id, vf.numa_node, vf.address,
               pf.address AS parent_address, pf.status = 'available' AS begins_port
          FROM room
          JOIN pci_devices pf ON pf.id = room.port_id
         CROSS JOIN LATERAL (
               SELECT id, numa_node, address FROM pci_devices
                WHERE parent_id = room.port_id AND status = 'available' AND pool_id = room.pool_id
                ORDER BY id LIMIT :count) vf
    ), device AS (
        SELECT d.compute_node_id, d.id, d.pool_id, d.dev_type, d.numa_node, d.address, d.vfs,
               count(*) OVER cell AS cell_free,
               count(*) OVER cell = :count AND count(*) OVER host > count(*) OVER cell AS last_of_cell,
               row_number() OVER (PARTITION BY compute_node_id, pool_id ORDER BY {devices_within}) AS place
          FROM pci_devices d
         WHERE compute_node_id = ANY(:node_ids) AND pool_id = ANY(:whole_pool_ids::integer[])
           AND status = 'available'
        WINDOW host AS (PARTITION BY compute_node_id, pool_id),
               cell AS (PARTITION BY compute_node_id, pool_id, numa_node)
    ), host AS MATERIALIZED (
        SELECT n.id, n.host, n.numa_cells, tree.vfs, tree.pfs + whole.pfs AS pfs, whole.others
          FROM compute_nodes n
         CROSS JOIN LATERAL (
               SELECT coalesce(sum(pp.free), 0)::bigint AS vfs,
                      count(DISTINCT pf.id) FILTER (WHERE pf.status = 'available'
                                                      AND pf.pool_id <> ALL(:whole_pool_ids)) AS pfs
                 FROM port_pools pp
                 JOIN pci_devices pf ON pf.id = pp.port_id
                WHERE pp.compute_node_id = n.id AND pp.free > 0
                  AND (pp.pool_id = ANY(:pool_ids) OR pf.pool_id = ANY(:whole_pool_ids))) tree
         CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE dev_type = 'type-PF') AS pfs,
                      count(*) FILTER (WHERE dev_type = 'type-PCI') AS others
                 FROM pci_devices
                WHERE compute_node_id = n.id AND pool_id = ANY(:whole_pool_ids)
                  AND status = 'available') whole
         WHERE n.id = ANY(:node_ids)
    )
    SELECT compute_node_id, free.id, port_id, pool_id, dev_type, numa_node, numa_cells,
           host, address, parent_address, room, place, begins_port, free.vfs,
           host.pfs, host.vfs, host.others
      FROM (SELECT compute_node_id, id, id AS port_id, pool_id, dev_type, numa_node, address,
                   NULL AS parent_address, 1 AS room, place, false AS begins_port,
                   (SELECT coalesce(sum(free), 0) FROM port_pools WHERE port_id = device.id)::bigint AS vfs,
                   row_number() OVER (ORDER BY {devices}) AS rank
              FROM device
             UNION ALL
            SELECT compute_node_id, id, port_id, pool_id, 'type-VF', numa_node, address,
                   parent_address, free, place, begins_port, 0,
                   row_number() OVER (ORDER BY {ports}, id)
              FROM vf) free
      JOIN host ON host.id = compute_node_id
     ORDER BY dev_type = 'type-VF', rank
"""


@lru_cache
def next_ports(packing: Packing, where: Where) -> PreparedStatement:
    """The ports that can serve a claim of VFs alone, in the lists that the claim would look at."""
    with_room = PORTS_WITH_ROOM.format(
        port_pools=free_ports(where),
        open_host=_next_host("pp", where),
        within=packing.within,
    )
    sql = _NEXT_PORTS.format(ports=packing.ports, within=packing.within, ports_with_room=with_room)
    return PreparedStatement(named("next_ports", where, packing), sql)


@lru_cache
def next_devices(packing: Packing, where: Where) -> PreparedStatement:
    """The devices that can serve a claim of one PF, or of one device without a tree."""
    whole = WHOLE_DEVICES.format(
        pci_devices=free_pci_devices(where),
        open_host=_next_host("d", where),
        devices_within=packing.devices_within,
    )
    sql = _NEXT_DEVICES.format(
        devices=packing.devices, devices_within=packing.devices_within, whole_devices=whole
    )
    return PreparedStatement(named("next_devices", where, packing), sql)


@lru_cache
def next_near(packing: Packing, where: Where) -> PreparedStatement:
    """The hosts of the best ports and devices, for a claim that is matched exactly."""
    near = NEAR.format(
        port_pools=free_ports(where),
        pci_devices=free_pci_devices(where),
        open_port=_next_host("pp", where),
        open_device=_next_host("d", where),
        within=packing.within,
        devices_within=packing.devices_within,
    )
    return PreparedStatement(named("next_near", where, packing), _NEXT_NEAR.format(near=near))


@lru_cache
def free_on_hosts(packing: Packing) -> PreparedStatement:
    """The devices that a claim could take on the hosts ``node_ids``, in the order of the policy."""
    sql = _FREE_ON_HOSTS.format(
        ports=packing.ports,
        within=packing.within,
        devices=packing.devices,
        devices_within=packing.devices_within,
    )
    return PreparedStatement(f"free_on_hosts_{packing.name}", sql)


def _next_host(of: str, where: Where) -> str:
    return open_host(of, where) + _NOT_SEEN.format(of=of)
