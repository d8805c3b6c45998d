"""The schema of release 0.2.0, the first one.

A database gets it from ``common/db/sql``, not by this migration: :mod:`portclaim.common.db.migrate` loads
these files into a new database and stamps it with the newest revision. So this revision only marks where
later migrations begin.
"""

revision = "0001"
down_revision = None


def upgrade() -> None:
    raise RuntimeError("common/db/sql makes a new database: call portclaim.common.db.migrate.upgrade")
