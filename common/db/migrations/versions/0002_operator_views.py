"""What operators see: four views, and the role that reads them and nothing else."""

from alembic import op

revision = "0002"
down_revision = "0001"

# status is what the row says; effective_status is what a claim would meet, whoever wrote the row:
# the tree partner is looked at again, and a host that takes no claims makes its free devices unavailable.
PF_VF_TREE = """
CREATE VIEW pf_vf_tree AS
SELECT n.host,
       coalesce(pf.address, d.address) AS port,
       d.address,
       d.dev_type,
       p.vendor_id,
       p.product_id,
       d.numa_node,
       d.status,
       CASE WHEN d.status <> 'available' THEN d.status
            WHEN pf.status = 'allocated' OR held_vfs.allocated THEN 'unavailable'
            WHEN pf.status = 'claimed' OR held_vfs.claimed THEN 'unclaimable'
            WHEN n.disabled_reason IS NOT NULL THEN 'unavailable'
            ELSE d.status END AS effective_status,
       CASE WHEN d.status IN ('claimed', 'allocated') THEN 'held by instance ' || c.instance_id
            WHEN d.status = 'removed' THEN 'its host no longer lists it'
            WHEN NOT d.offered THEN 'no device_spec entry of its host takes it'
            WHEN d.unusable_reason IS NOT NULL THEN d.unusable_reason
            WHEN pf.status IN ('claimed', 'allocated') THEN 'its PF is ' || pf.status
            WHEN held_vfs.held > 0 THEN held_vfs.held || ' of its VFs held'
            WHEN NOT d.present THEN 'its host does not list it now'
            WHEN n.disabled_reason IS NOT NULL THEN 'host disabled: ' || n.disabled_reason
       END AS reason,
       d.claim_id,
       c.instance_id,
       p.tags,
       d.attributes ->> 'driver' AS driver,
       d.attributes ->> 'netdev' AS netdev
  FROM pci_devices d
  JOIN compute_nodes n ON n.id = d.compute_node_id
  JOIN pools p ON p.id = d.pool_id
  LEFT JOIN pci_devices pf ON pf.id = d.parent_id
  LEFT JOIN claims c ON c.id = d.claim_id
  LEFT JOIN LATERAL (
       SELECT count(*) AS held,
              bool_or(vf.status = 'allocated') AS allocated,
              bool_or(vf.status = 'claimed') AS claimed
         FROM pci_devices vf
        WHERE d.dev_type = 'type-PF' AND vf.parent_id = d.id AND NOT vf.unheld
       ) held_vfs ON true
"""

POOL_TOTALS = """
CREATE VIEW pool_totals AS
SELECT n.host,
       p.dev_type,
       p.vendor_id,
       p.product_id,
       d.numa_node,
       p.tags,
       count(*) FILTER (WHERE d.status <> 'removed') AS total,
       count(*) FILTER (WHERE d.status = 'available' AND n.disabled_reason IS NULL) AS available,
       count(*) FILTER (WHERE d.status = 'claimed') AS claimed,
       count(*) FILTER (WHERE d.status = 'allocated') AS allocated,
       count(*) FILTER (WHERE d.status = 'unclaimable') AS unclaimable,
       count(*) FILTER (WHERE d.status = 'unavailable'
                           OR d.status = 'available' AND n.disabled_reason IS NOT NULL) AS unavailable
  FROM pci_devices d
  JOIN compute_nodes n ON n.id = d.compute_node_id
  JOIN pools p ON p.id = d.pool_id
 GROUP BY n.host, p.id, d.numa_node
HAVING count(*) FILTER (WHERE d.status <> 'removed') > 0
"""

CLAIMS_NOW = """
CREATE VIEW claims_now AS
SELECT c.id AS claim_id,
       c.instance_id,
       n.host,
       c.status,
       held.devices,
       c.created_at AS claimed_at,
       o.action AS awaited_step,
       o.sends AS times_sent,
       now() - o.created_at AS awaited_for,
       now() - n.last_seen AS agent_silent_for
  FROM claims c
  JOIN compute_nodes n ON n.id = c.compute_node_id
  LEFT JOIN outbox o ON o.claim_id = c.id AND o.step = c.step
 CROSS JOIN LATERAL (
       SELECT array_agg(d.address ORDER BY d.address) AS devices
         FROM pci_devices d
        WHERE d.claim_id = c.id
       ) held
 WHERE c.live
"""

DEVICE_HISTORY = """
CREATE VIEW device_history AS
SELECT n.host,
       d.address,
       p.dev_type,
       p.vendor_id,
       p.product_id,
       cd.held_from,
       cd.held_until,
       c.instance_id,
       cd.claim_id,
       c.status AS claim_status,
       c.reason AS claim_reason
  FROM claim_devices cd
  JOIN claims c ON c.id = cd.claim_id
  JOIN pci_devices d ON d.id = cd.device_id
  JOIN compute_nodes n ON n.id = d.compute_node_id
  JOIN pools p ON p.id = cd.pool_id
"""

# A role belongs to the whole server: another database's migration may be making it right now.
OPERATOR = """
DO $$ BEGIN
    CREATE ROLE portclaim_operator NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
GRANT USAGE ON SCHEMA public TO portclaim_operator;
GRANT SELECT ON pf_vf_tree, pool_totals, claims_now, device_history TO portclaim_operator;
"""


def upgrade() -> None:
    for statement in (PF_VF_TREE, POOL_TOTALS, CLAIMS_NOW, DEVICE_HISTORY, OPERATOR):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP VIEW device_history, claims_now, pool_totals, pf_vf_tree")
    op.execute("REVOKE USAGE ON SCHEMA public FROM portclaim_operator")
