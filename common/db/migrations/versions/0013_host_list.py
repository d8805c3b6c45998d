"""What operators want to know of each host: its ports, whole and in slices, and which of them are drained."""

from importlib import import_module

from alembic import op

revision = "0013"
down_revision = "0012"

drain = import_module("portclaim.common.db.migrations.versions.0008_drain")

# A view's columns can only be added at its end.
HOSTS = """
CREATE OR REPLACE VIEW hosts AS
SELECT n.host,
       n.disabled_reason AS drained_reason,
       now() - n.last_seen AS agent_silent_for,
       d.devices,
       d.available,
       d.ports_drained,
       (SELECT count(*) FROM claims c WHERE c.compute_node_id = n.id AND c.live) AS live_claims,
       d.pfs_available,
       d.pfs_held,
       d.vfs_available,
       d.vfs_held,
       d.drained_ports
  FROM compute_nodes n
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE d.status <> 'removed') AS devices,
              count(*) FILTER (WHERE is_available) AS available,
              count(*) FILTER (WHERE d.drained_reason IS NOT NULL AND d.parent_id IS NULL) AS ports_drained,
              count(*) FILTER (WHERE d.dev_type = 'type-PF' AND is_available) AS pfs_available,
              count(*) FILTER (WHERE d.dev_type = 'type-PF' AND NOT d.unheld) AS pfs_held,
              count(*) FILTER (WHERE d.dev_type = 'type-VF' AND is_available) AS vfs_available,
              count(*) FILTER (WHERE d.dev_type = 'type-VF' AND NOT d.unheld) AS vfs_held,
              coalesce(jsonb_object_agg(d.address, d.drained_reason ORDER BY d.address)
                           FILTER (WHERE d.drained_reason IS NOT NULL AND d.parent_id IS NULL),
                       '{}') AS drained_ports
         FROM pci_devices d
        CROSS JOIN LATERAL (
              SELECT d.status = 'available' AND n.disabled_reason IS NULL AS is_available) now
        WHERE d.compute_node_id = n.id
       ) d
"""


def upgrade() -> None:
    op.execute(HOSTS)


def downgrade() -> None:
    op.execute("DROP VIEW hosts")
    op.execute(drain.HOSTS)
