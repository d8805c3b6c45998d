"""Bring a database to the schema that this version of the code needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import exc

from portclaim.common.errors import ServiceUnavailable

_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x706F7274  # "port": one migration at a time per database


def upgrade(url: str, revision: str = "head") -> tuple[str | None, str | None]:
    """Migrate the database at ``url``; answer the revisions before and after.

    Safe to start from several places at once: the second waits and then finds nothing to do.
    The connecting role must own the schema and be allowed to create roles (``portclaim_operator``).
    Raises :class:`ServiceUnavailable` with PostgreSQL's own words; the step that failed changed nothing.
    """
    try:
        return _migrate(url, lambda config: command.upgrade(config, revision))
    except exc.DBAPIError as error:
        raise ServiceUnavailable(f"the database could not be upgraded: {str(error.orig).strip()}") from error


def downgrade(url: str, revision: str = "base") -> tuple[str | None, str | None]:
    """Take the schema back to ``revision``. **Everything the dropped tables held is lost.**"""
    return _migrate(url, lambda config: command.downgrade(config, revision))


def _migrate(url: str, run: Callable[[Config], None]) -> tuple[str | None, str | None]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
        connection.commit()
        before = MigrationContext.configure(connection).get_current_revision()
        connection.commit()
        config.attributes["connection"] = connection
        run(config)
        connection.commit()
        after = MigrationContext.configure(connection).get_current_revision()
        return before, after
