"""The statements that read what is free for a claim that is matched exactly."""

from __future__ import annotations

from typing import Literal

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.statements import (
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

# Every device of these hosts that a claim could take, at one moment, in the order of the policy. Of devices
# that are alike (one port, one pool), only as many as the claim needs.
_FREE = """
    WITH {with_hosts}
    chosen AS MATERIALIZED (
        SELECT id, numa_cells FROM compute_nodes n WHERE {of_hosts} AND {open_host}
    ),
    {devices_of_hosts}
    SELECT ranked.compute_node_id, ranked.id, port_id, pool_id, dev_type, numa_node, chosen.numa_cells
           {columns}
      FROM (SELECT compute_node_id, id, port_id, pool_id, dev_type, numa_node,
                   row_number() OVER (ORDER BY {devices}) AS rank
              FROM device
             UNION ALL
            SELECT compute_node_id, id, port_id, pool_id, 'type-VF', numa_node,
                   row_number() OVER (ORDER BY {ports}, id)
              FROM vf) ranked
      JOIN chosen ON chosen.id = ranked.compute_node_id
     ORDER BY dev_type = 'type-VF', rank
"""

# The counters of the ports say which ports to look at. by_numa: the NUMA nodes of the devices matter. The VFs
# of a port without a known NUMA node may be on several.
_AVAILABLE = """
    room AS (
        SELECT pp.*,
               sum(free) OVER cell AS cell_free,
               sum(free) OVER cell = :count::integer
                   AND sum(free) OVER host > sum(free) OVER cell AS last_of_cell
          FROM chosen
         CROSS JOIN LATERAL (
               SELECT * FROM port_pools
                WHERE compute_node_id = chosen.id AND pool_id = ANY(:pool_ids::integer[]) AND free > 0
               OFFSET 0) pp
        WINDOW host AS (PARTITION BY compute_node_id, pool_id),
               cell AS (PARTITION BY compute_node_id, pool_id, numa_node)
    ), vf AS (
        SELECT room.compute_node_id, room.port_id, room.pool_id, room.free, room.held, room.whole,
               room.cell_free, room.last_of_cell, vf.id, vf.numa_node
          FROM room
         CROSS JOIN LATERAL (
               SELECT id, numa_node FROM pci_devices
                WHERE parent_id = room.port_id AND status = 'available' AND pool_id = room.pool_id
                ORDER BY id LIMIT CASE WHEN :by_numa::boolean AND room.numa_node IS NULL THEN NULL
                                       ELSE :count END) vf
    ), device AS (
        SELECT d.*, d.id AS port_id,
               count(*) OVER cell AS cell_free,
               count(*) OVER cell = :count AND count(*) OVER host > count(*) OVER cell AS last_of_cell
          FROM chosen
         CROSS JOIN LATERAL (
               SELECT compute_node_id, id, pool_id, dev_type, numa_node, vfs FROM pci_devices
                WHERE compute_node_id = chosen.id AND parent_id IS NULL AND pool_id = ANY(:pool_ids)
                  AND status = 'available'
               OFFSET 0) d
        WINDOW host AS (PARTITION BY compute_node_id, pool_id),
               cell AS (PARTITION BY compute_node_id, pool_id, numa_node)
    )
"""

# The counters do not have what is reserved for a waiting claim. So every device is looked at.
_AVAILABLE_OR_RESERVED = """
    free AS (
        SELECT d.*, coalesce(d.parent_id, d.id) AS port_id,
               count(*) OVER cell AS cell_free,
               count(*) OVER cell = :count::integer
                   AND count(*) OVER host > count(*) OVER cell AS last_of_cell,
               count(*) OVER alike AS free,
               row_number() OVER (PARTITION BY coalesce(d.parent_id, d.id), d.pool_id, d.numa_node
                                  ORDER BY d.id) AS number
          FROM chosen
          JOIN {free} d ON d.compute_node_id = chosen.id
         WHERE d.pool_id = ANY(:pool_ids::integer[])
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
    ), device AS (
        SELECT * FROM wanted WHERE parent_id IS NULL
    ), vf AS (
        SELECT * FROM wanted WHERE parent_id IS NOT NULL
    )
"""


def near_hosts(packing: Packing, where: Where) -> PreparedStatement:
    """The hosts of the devices that the policy prefers.

    The exact path begins with these. Only a claim that they cannot serve looks at other hosts.
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


_ON_HOSTS = {
    "on hosts": """n.id = ANY(ARRAY(
        SELECT hosts_with_room(:needs::jsonb, :agent_down_after::double precision, NULL, :avoid_hosts::text[],
                               :node_ids::bigint[])))""",
    "on named hosts": """n.id = ANY(ARRAY(
        SELECT hosts_with_room(:needs::jsonb, :agent_down_after::double precision, :hosts::text[],
                               :avoid_hosts::text[], NULL)))""",
}

_CLOSE_HOSTS = """
    close AS MATERIALIZED (
        SELECT * FROM close_hosts(
            :needs::jsonb, :pool_ids::integer[], :count::integer, :by_numa::boolean,
            :agent_down_after::double precision, :hosts::text[], :avoid_hosts::text[], :busy::bigint[],
            :most_first::boolean, :after::text, :limit::integer)
    ),
"""
_ON_CLOSE_HOSTS = "n.id = ANY(ARRAY(SELECT compute_node_id FROM close {also_on}))"
# The last columns: how many kinds of hosts were read, and the last of them.
_KINDS_READ = ", (SELECT count(*) FROM close), (SELECT max(kind) FROM close)"
_OPEN_HOST = """
    n.disabled_reason IS NULL
    AND n.last_seen > now() - make_interval(secs => :agent_down_after::double precision)
    AND (:avoid_hosts::text[] IS NULL OR NOT n.host = ANY(:avoid_hosts))
"""


def free_on_hosts(packing: Packing, where: Literal["on hosts", "on named hosts"]) -> PreparedStatement:
    """Read what is free for a claim on the hosts ``node_ids``, or on those named ``hosts``."""
    sql = _FREE.format(
        with_hosts="",
        columns="",
        devices_of_hosts=_AVAILABLE,
        devices=packing.devices,
        ports=packing.ports,
        of_hosts=_ON_HOSTS[where],
        open_host=_OPEN_HOST,
    )
    return PreparedStatement(f"free_devices_{where.replace(' ', '_')}_{packing.name}", sql)


def free_on_close_hosts(packing: Packing) -> PreparedStatement:
    """Read what is free for a claim on one host of each kind that may serve it, a page of kinds at a time."""
    return _on_close_hosts("free_devices", packing, _AVAILABLE, also_on="")


def free_or_reserved_on_close_hosts(packing: Packing, free: str, also_on: str) -> PreparedStatement:
    """The same for a waiting claim.

    ``free``: what counts as free. ``also_on``: a query for further hosts.
    """
    return _on_close_hosts("free_for_waiting", packing, _AVAILABLE_OR_RESERVED.format(free=free), also_on)


def _on_close_hosts(name: str, packing: Packing, devices_of_hosts: str, also_on: str) -> PreparedStatement:
    sql = _FREE.format(
        with_hosts=_CLOSE_HOSTS,
        columns=_KINDS_READ,
        devices_of_hosts=devices_of_hosts,
        devices=packing.devices,
        ports=packing.ports,
        of_hosts=_ON_CLOSE_HOSTS.format(also_on=also_on),
        open_host=_OPEN_HOST,
    )
    return PreparedStatement(f"{name}_on_close_hosts_{packing.name}", sql)
