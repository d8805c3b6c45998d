"""The SQL of claims that wait. What the functions do is in the migration ``0011_waiting_claims``."""

from __future__ import annotations

from functools import lru_cache

from portclaim.common.db.prepared import Prepared
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.statements import free_devices

WAIT = Prepared(
    "wait_in_line",
    """
    SELECT wait_in_line(
        :claim_id::uuid, :instance_id::uuid, :request::jsonb, :seconds::double precision)::text
    """,
)

IN_LINE = Prepared(
    "claims_in_line", "SELECT count(*) FROM waiting_claims WHERE wish = :request::jsonb - 'instance_id'"
)

FIRSTS = Prepared(
    "first_in_line",
    """
    SELECT id::text, request
      FROM (SELECT DISTINCT ON (w.wish) w.id, w.place, c.request
              FROM waiting_claims w
              JOIN claims c ON c.id = w.id
             ORDER BY w.wish, w.place) first
     ORDER BY place
    """,
)

OVERDUE = Prepared("overdue_claims", "SELECT id::text FROM waiting_claims WHERE deadline <= now()")

EXPIRE = Prepared("expire_waiting", "SELECT expire_waiting(:claim_id::uuid)")

SERVE = Prepared(
    "serve_waiting",
    """
    SELECT serve_waiting(
        :claim_id::uuid, :resend_after::double precision, :device_ids::bigint[], :request_indexes::integer[],
        :pool_ids::integer[], :port_ids::bigint[])::text
    """,
)

KEPT = Prepared(
    "kept_ports", "SELECT kept_for::text, coalesce(parent_id, id) FROM pci_devices WHERE kept_for IS NOT NULL"
)

KEEP = Prepared("keep_ports", "SELECT keep_ports(:claim_id::uuid, :port_ids::bigint[])")

# What a claim could take if all left who hold something: the ports with the fewest holders first. The VFs of
# a PF that is in a guest do not exist, but will.
_WOULD_DO = """
    WITH device AS (
        SELECT d.*, n.numa_cells, coalesce(d.parent_id, d.id) AS port_id,
               row_number() OVER (PARTITION BY coalesce(d.parent_id, d.id), d.pool_id ORDER BY d.id) AS number
          FROM compute_nodes n
          JOIN pci_devices d ON d.compute_node_id = n.id
          LEFT JOIN pci_devices pf ON pf.id = d.parent_id
         WHERE n.disabled_reason IS NULL
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


WOULD_DO = Prepared("would_do", _WOULD_DO.format(which="true"))

KEPT_WOULD_DO = Prepared("kept_would_do", _WOULD_DO.format(which="d.kept_for = :claim_id::uuid"))
"""Of that, what is kept for the claim."""

# What is kept for the claim is unavailable for that alone, or else is not free for it either.
_FREE_FOR = """
    (SELECT * FROM pci_devices WHERE status = 'available'
      UNION ALL
     SELECT * FROM pci_devices kept
      WHERE kept_for = :claim_id::uuid AND unheld AND status <> 'removed'
        AND settled_status(offered, present, coalesce(drained_reason, unusable_reason), NULL) = 'available'
        AND NOT EXISTS (SELECT FROM pci_devices other
                         WHERE NOT other.unheld AND (other.id = kept.parent_id OR other.parent_id = kept.id)))
"""


@lru_cache
def free_for(packing: Packing, *, on_named_hosts: bool) -> Prepared:
    """Read what is free for a claim that waits: on the hosts that it names, or on all."""
    where = "on named hosts" if on_named_hosts else "anywhere"
    return free_devices(packing, where, free=_FREE_FOR, name="free_for_waiting")
