"""What keeps the cost of a claim the same, however many claims there were and however many VFs a port has."""

from alembic import op

revision = "0005"
down_revision = "0004"

# A device that is let go of is looked up among the claims by the foreign key live_claim_holds_a_device.
CLAIMS_LIVE = "CREATE INDEX claims_live ON claims (live_id) WHERE live_id IS NOT NULL"

# The first free VF of a port is the first entry of the index, not the smallest of all that are free.
BY_PARENT = "CREATE INDEX pci_devices_by_parent ON pci_devices ({}) WHERE parent_id IS NOT NULL"

# Rows that change with every claim: swept when a thousand are dead, however many there are, and without
# a pause; the share of a table that PostgreSQL waits for by default is hours of claims in a large fleet.
SWEPT = ("pci_devices", "port_pools", "claims", "outbox")
SWEEP = {
    "autovacuum_vacuum_scale_factor": "0",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_vacuum_cost_delay": "0",
}


def upgrade() -> None:
    for table in SWEPT:
        op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{name} = {SWEEP[name]}' for name in SWEEP)})")
    op.execute(CLAIMS_LIVE)
    op.execute("DROP INDEX pci_devices_by_parent")
    op.execute(BY_PARENT.format("parent_id, status, id"))


def downgrade() -> None:
    for table in SWEPT:
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(SWEEP)})")
    op.execute("DROP INDEX pci_devices_by_parent")
    op.execute(BY_PARENT.format("parent_id, status"))
    op.execute("DROP INDEX claims_live")
