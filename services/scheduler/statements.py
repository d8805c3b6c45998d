"""The SQL of a claim, in the order in which a claim runs it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

# Of the caller's own id: an answer given before, or a claim id used for something else.
SAME_REQUEST = sa.text("""
    SELECT request = :request FROM claims WHERE id = :claim_id
""").bindparams(sa.bindparam("request", type_=JSONB))

POOLS = sa.text("SELECT id, dev_type, vendor_id, product_id, tags FROM pools")

# Every device that a request could take, on hosts that take claims; in one snapshot, so that it was
# once true all together. port_held: devices of its tree that somebody holds.
FREE_DEVICES = sa.text("""
    WITH host AS (
        SELECT d.compute_node_id AS id
          FROM pci_devices d
          JOIN compute_nodes n ON n.id = d.compute_node_id
         WHERE d.status = 'available' AND d.pool_id = ANY(:pool_ids)
           AND n.disabled_reason IS NULL
           AND (cast(:hosts AS text[]) IS NULL OR n.host = ANY(:hosts))
           AND NOT n.host = ANY(:avoid_hosts)
         GROUP BY d.compute_node_id
        HAVING count(*) >= :device_count
    )
    SELECT d.compute_node_id, d.id, coalesce(d.parent_id, d.id) AS port_id, d.pool_id, d.dev_type,
           d.numa_node, d.address,
           (SELECT count(*) FROM pci_devices vf
             WHERE vf.parent_id = coalesce(d.parent_id, d.id) AND NOT vf.unheld) AS port_held,
           (SELECT count(*) FROM pci_devices vf
             WHERE vf.parent_id = coalesce(d.parent_id, d.id) AND vf.status = 'available') AS port_free
      FROM pci_devices d
      JOIN host ON host.id = d.compute_node_id
     WHERE d.status = 'available' AND d.pool_id = ANY(:pool_ids)
""")

# The lock of the trees. Passing over locked ones may change what is chosen, never the answer.
LOCK_PORTS = sa.text("SELECT id FROM pci_devices WHERE id = ANY(:port_ids) ORDER BY id FOR UPDATE")
LOCK_PORTS_UNLESS_BUSY = sa.text(f"{LOCK_PORTS.text} SKIP LOCKED")

ADD_CLAIM = sa.text("""
    INSERT INTO claims (id, instance_id, compute_node_id, request, first_device_id)
    VALUES (:claim_id, :instance_id, :compute_node_id, :request, :first_device_id)
        ON CONFLICT (id) DO NOTHING
    RETURNING id
""").bindparams(sa.bindparam("request", type_=JSONB))

# Taken only as it was seen: whatever changed before the lock was ours leaves a device out.
TAKE = sa.text("""
    UPDATE pci_devices SET status = 'claimed', claim_id = :claim_id
     WHERE id = ANY(:device_ids) AND status = 'available'
    RETURNING id
""")

# A PF taken whole takes its VFs along, a VF its PF; nothing else changes by itself.
TAKE_PARTNERS = sa.text("""
    UPDATE pci_devices SET status = 'unclaimable'
     WHERE status = 'available'
       AND (parent_id = ANY(:device_ids)
            OR id IN (SELECT parent_id FROM pci_devices WHERE id = ANY(:device_ids)))
""")

REMEMBER_HOLD = sa.text("""
    INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)
    SELECT :claim_id, d.id, d.pool_id, wanted.request_index
      FROM unnest(cast(:device_ids AS bigint[]), cast(:request_indexes AS int[]))
           AS wanted (device_id, request_index)
      JOIN pci_devices d ON d.id = wanted.device_id
""")

ADD_EVENT = sa.text("""
    INSERT INTO claim_events (claim_id, from_status, to_status, cause)
    VALUES (:claim_id, :from_status, :to_status, :cause)
""")

LOCK_CLAIM = sa.text("SELECT status, step FROM claims WHERE id = :claim_id FOR UPDATE")

BEGIN_RELEASE = sa.text("""
    UPDATE claims SET status = 'releasing', step = step + 1, updated_at = now() WHERE id = :claim_id
""")
