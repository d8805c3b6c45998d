"""The statements of waiting claims. The functions are in common/db/sql/waiting.sql."""

from __future__ import annotations

from functools import lru_cache

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.services.scheduler.free_statements import free_or_reserved_on_close_hosts
from portclaim.services.scheduler.packing import Packing

ENQUEUE_CLAIM = PreparedStatement(
    "enqueue_claim",
    """
    SELECT enqueue_claim(
        :claim_id::uuid, :instance_id::uuid, :request::jsonb, :seconds::double precision)::text
    """,
)

QUEUE_LENGTH = PreparedStatement(
    "queue_length", "SELECT count(*) FROM waiting_claims WHERE requests = queue_key(:request::jsonb)"
)

QUEUE_HEADS = PreparedStatement(
    "queue_heads",
    """
    SELECT id::text, request
      FROM (SELECT DISTINCT ON (w.requests) w.id, w.position, c.request
              FROM waiting_claims w
              JOIN claims c ON c.id = w.id
             ORDER BY w.requests, w.position) head
     ORDER BY position
    """,
)

OVERDUE = PreparedStatement("overdue_claims", "SELECT id::text FROM waiting_claims WHERE deadline <= now()")

EXPIRE_WAITING = PreparedStatement("expire_waiting", "SELECT expire_waiting(:claim_id::uuid)")

SERVE_WAITING = PreparedStatement(
    "serve_waiting",
    """
    SELECT serve_waiting(
        :claim_id::uuid, :resend_after::double precision, :device_ids::bigint[], :request_indexes::integer[],
        :pool_ids::integer[], :port_ids::bigint[])::text
    """,
)

RESERVED_PORTS = PreparedStatement(
    "reserved_ports",
    "SELECT reserved_for::text, coalesce(parent_id, id) FROM pci_devices WHERE reserved_for IS NOT NULL",
)

RESERVE_PORTS = PreparedStatement(
    "reserve_ports", "SELECT reserve_ports(:claim_id::uuid, :port_ids::bigint[])"
)

RESERVABLE_HOSTS = PreparedStatement(
    "reservable_hosts",
    """
    WITH room AS (
        SELECT compute_node_id, pool_id, devices, free FROM host_pools
         WHERE pool_id = ANY(:pool_ids::integer[])
         UNION ALL
        SELECT id, NULL, NULL, NULL FROM unnest(uncounted_hosts(:pool_ids)) AS id
    ), need AS (
        SELECT * FROM jsonb_to_recordset(:needs::jsonb) AS need (pools integer[], count integer)
    ), host AS (
        SELECT compute_node_id, sum(free) AS free
          FROM room
         WHERE (compute_node_id IN (SELECT unnest(:seen::bigint[]))) IS NOT TRUE
         GROUP BY compute_node_id
        HAVING bool_or(pool_id IS NULL)
            OR NOT EXISTS (SELECT FROM need
                            WHERE need.count > (SELECT coalesce(sum(hp.devices), 0) FROM host_pools hp
                                                 WHERE hp.compute_node_id = room.compute_node_id
                                                   AND hp.pool_id = ANY(need.pools)))
    )
    SELECT n.id
      FROM host
      JOIN compute_nodes n ON n.id = host.compute_node_id
     WHERE n.disabled_reason IS NULL
       AND n.last_seen > now() - make_interval(secs => :agent_down_after::double precision)
       AND (:hosts::text[] IS NULL OR (n.host IN (SELECT unnest(:hosts))) IS TRUE)
       AND (:avoid_hosts::text[] IS NULL OR NOT n.host = ANY(:avoid_hosts))
     ORDER BY host.free DESC NULLS FIRST, n.id
     LIMIT :limit::integer
    """,
)
"""Hosts that have enough devices for the claim, free or not. Those with the most free devices come first."""

# The devices that a claim could take if every other claim were released, those of the ports with the fewest
# claims first. VFs of a PF that is in a guest are not present, and come back after its release.
_RESERVABLE = """
    WITH device AS (
        SELECT d.*, n.numa_cells, coalesce(d.parent_id, d.id) AS port_id,
               row_number() OVER (PARTITION BY coalesce(d.parent_id, d.id), d.pool_id ORDER BY d.id) AS number
          FROM compute_nodes n
          JOIN pci_devices d ON d.compute_node_id = n.id
          LEFT JOIN pci_devices pf ON pf.id = d.parent_id
         WHERE {of_hosts} AND n.disabled_reason IS NULL
           AND n.last_seen > now() - make_interval(secs => :agent_down_after::double precision)
           AND (:hosts::text[] IS NULL OR n.host = ANY(:hosts))
           AND (:avoid_hosts::text[] IS NULL OR NOT n.host = ANY(:avoid_hosts))
           AND d.pool_id = ANY(:pool_ids::integer[]) AND {which}
           AND d.offered AND d.status <> 'removed'
           AND d.drained_reason IS NULL AND d.unusable_reason IS NULL
           AND (d.present OR NOT pf.unheld)
    )
    SELECT compute_node_id, device.id, port_id, pool_id, dev_type, numa_node, numa_cells
      FROM device
     CROSS JOIN LATERAL (
           SELECT count(claim_id) AS claims
             FROM (SELECT claim_id FROM pci_devices WHERE id = device.port_id
                    UNION SELECT claim_id FROM pci_devices WHERE parent_id = device.port_id) tree
           ) holders
     WHERE number <= :count::integer
     ORDER BY holders.claims, port_id, device.id
"""


RESERVABLE = PreparedStatement(
    "reservable", _RESERVABLE.format(of_hosts="n.id = ANY(:node_ids::bigint[])", which="true")
)
"""Those of them that are on these hosts."""

RESERVED = PreparedStatement(
    "reserved",
    _RESERVABLE.format(
        of_hosts="""n.id = ANY(ARRAY(
            SELECT compute_node_id FROM pci_devices WHERE reserved_for = :claim_id::uuid))""",
        which="d.reserved_for = :claim_id",
    ),
)
"""Those of them that are reserved for the claim."""

# What is available, and what only its reservation for this claim makes unavailable.
_FREE_FOR_CLAIM = """
    (SELECT * FROM pci_devices WHERE status = 'available'
      UNION ALL
     SELECT * FROM pci_devices reserved
      WHERE reserved_for = :claim_id::uuid AND unheld AND status <> 'removed'
        AND derived_status(offered, present, coalesce(drained_reason, unusable_reason), NULL) = 'available'
        AND NOT EXISTS (SELECT FROM pci_devices other
                         WHERE NOT other.unheld AND (other.id = reserved.parent_id OR other.parent_id =
                         reserved.id)))
"""


# The counters of a host do not have what is reserved: so the hosts of reserved ports are read too.
_HOSTS_OF_RESERVED_PORTS = """
    UNION SELECT compute_node_id FROM pci_devices WHERE reserved_for = :claim_id::uuid
"""


@lru_cache
def free_for(packing: Packing) -> PreparedStatement:
    """Read what is free for a waiting claim, on one host of each kind and on those of its reserved ports."""
    return free_or_reserved_on_close_hosts(packing, _FREE_FOR_CLAIM, _HOSTS_OF_RESERVED_PORTS)
