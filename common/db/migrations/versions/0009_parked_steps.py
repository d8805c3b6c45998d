"""Steps that were sent as often as they may be: parked, shown, and sent again when an operator says so."""

from alembic import op

revision = "0009"
down_revision = "0008"

AWAITED_STEPS = """
CREATE VIEW awaited_steps AS
SELECT n.host,
       o.claim_id,
       c.instance_id,
       o.step,
       o.action,
       o.send_after = 'infinity' AS parked,
       o.sends AS times_sent,
       nullif(o.send_after, 'infinity') AS next_send,
       now() - o.created_at AS awaited_for,
       now() - n.last_seen AS agent_silent_for,
       c.reason AS last_failure
  FROM outbox o
  JOIN claims c ON c.id = o.claim_id
  JOIN compute_nodes n ON n.id = c.compute_node_id;
GRANT SELECT ON awaited_steps TO portclaim_operator;
"""


def upgrade() -> None:
    op.execute(AWAITED_STEPS)
    op.execute("COMMENT ON COLUMN outbox.send_after IS 'when it is sent again; infinity: parked'")


def downgrade() -> None:
    op.execute("UPDATE outbox SET send_after = now() WHERE send_after = 'infinity'")
    op.execute("COMMENT ON COLUMN outbox.send_after IS NULL")
    op.execute("DROP VIEW awaited_steps")
