"""What may follow what in a claim's life, kept by PostgreSQL whoever writes."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE claim_events ADD CONSTRAINT is_a_transition CHECK (
            (coalesce(from_status, ''), to_status) IN (
                ('', 'claimed'),
                ('claimed', 'allocated'), ('claimed', 'failed'),
                ('claimed', 'releasing'), ('claimed', 'released'),
                ('allocated', 'releasing'), ('allocated', 'failed'), ('allocated', 'released'),
                ('releasing', 'releasing'), ('releasing', 'released'), ('releasing', 'expired')))
    """)


def downgrade() -> None:
    op.execute("ALTER TABLE claim_events DROP CONSTRAINT is_a_transition")
