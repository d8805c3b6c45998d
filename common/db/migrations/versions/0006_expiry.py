"""Claims that are taken back because nobody ever attached them."""

from importlib import import_module

from alembic import op

revision = "0006"
down_revision = "0005"

life_cycle = import_module("portclaim.common.db.migrations.versions.0004_claim_life_cycle")


def upgrade() -> None:
    op.execute("ALTER TABLE claims ADD COLUMN expiry text")
    op.execute(
        "COMMENT ON COLUMN claims.expiry IS"
        " 'why the claim is taken back though nobody released it: it ends as expired; null: it is not'"
    )
    # As it is now, wherever an earlier one was made.
    op.execute(life_cycle.ANSWER_STEP.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))


def downgrade() -> None:
    op.execute("ALTER TABLE claims DROP COLUMN expiry")
