"""What keeps the cost of a claim the same, however many claims there were and however many VFs a port has."""

from alembic import op

revision = "0005"
down_revision = "0004"

# A device that is let go of is looked up among the claims by the foreign key live_claim_holds_a_device.
CLAIMS_LIVE = "CREATE INDEX claims_live ON claims (live_id) WHERE live_id IS NOT NULL"

# The first free VF of a port is the first entry of the index, not the smallest of all that are free.
BY_PARENT = "CREATE INDEX pci_devices_by_parent ON pci_devices ({}) WHERE parent_id IS NOT NULL"


def upgrade() -> None:
    op.execute(CLAIMS_LIVE)
    op.execute("DROP INDEX pci_devices_by_parent")
    op.execute(BY_PARENT.format("parent_id, status, id"))


def downgrade() -> None:
    op.execute("DROP INDEX pci_devices_by_parent")
    op.execute(BY_PARENT.format("parent_id, status"))
    op.execute("DROP INDEX claims_live")
