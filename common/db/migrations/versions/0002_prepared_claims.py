"""Claims that are prepared before their instance is on the host."""

from alembic import op

revision = "0002"
down_revision = "0001"

_STATEMENTS = """
ALTER TABLE claims
    DROP CONSTRAINT claims_status_check,
    ADD CONSTRAINT claims_status_check CHECK (status IN
        ('waiting', 'claimed', 'prepared', 'allocated', 'releasing', 'released', 'failed', 'expired')),
    ADD COLUMN attach text NOT NULL DEFAULT 'auto'
        CONSTRAINT claims_attach_check CHECK (attach IN ('auto', 'on-call')),
    ADD COLUMN prepared_at timestamptz,
    ADD COLUMN guest_deadline timestamptz;
CREATE INDEX claims_by_guest_deadline ON claims (guest_deadline) WHERE status = 'prepared';
COMMENT ON COLUMN claims.attach IS
    'auto: the agent attaches the devices as soon as the guest is there; on-call: when the caller says so';
COMMENT ON COLUMN claims.prepared_at IS
    'when the agent had the devices ready for the guest; null: not yet, or it attached them at once';
COMMENT ON COLUMN claims.guest_deadline IS 'when a prepared claim expires; null: never';

ALTER TABLE outbox
    DROP CONSTRAINT outbox_action_check,
    ADD CONSTRAINT outbox_action_check CHECK (action IN
        ('prepare', 'attach', 'unplug', 'detach'));

ALTER TABLE claim_moves ADD COLUMN kind text NOT NULL DEFAULT 'cold'
    CONSTRAINT claim_moves_kind_check CHECK (kind IN ('cold', 'live'));
COMMENT ON COLUMN claim_moves.kind IS
    'live: the guest runs on while it moves, and its devices are exchanged by the agents';

ALTER TABLE claim_events
    DROP CONSTRAINT is_a_transition,
    ADD CONSTRAINT is_a_transition CHECK (
        (coalesce(from_status, ''), to_status) IN (
            ('', 'claimed'), ('', 'waiting'),
            ('waiting', 'claimed'), ('waiting', 'released'), ('waiting', 'expired'),
            ('claimed', 'prepared'), ('claimed', 'allocated'), ('claimed', 'failed'),
            ('claimed', 'releasing'), ('claimed', 'released'),
            ('prepared', 'allocated'), ('prepared', 'failed'),
            ('prepared', 'releasing'), ('prepared', 'released'),
            ('allocated', 'prepared'),
            ('allocated', 'releasing'), ('allocated', 'failed'), ('allocated', 'released'),
            ('releasing', 'releasing'), ('releasing', 'released'), ('releasing', 'expired')));
"""


def upgrade() -> None:
    op.execute(_STATEMENTS)
