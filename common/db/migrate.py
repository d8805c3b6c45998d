"""Bring a database to the schema that this version of the code needs.

A new database gets the present schema from the files in ``sql/``. An existing one gets the migrations that it
lacks, and then the same files of functions, views and roles again. All of it is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
import tenacity
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import exc

from portclaim.common.errors import InvalidConfiguration, ServiceUnavailable

SQL = Path(__file__).parent / "sql"
TABLES = "tables"
REPEATABLE = (
    "room",
    "trees",
    "traces",
    "network",
    "quotas",
    "claim",
    "release",
    "batches",
    "answers",
    "keys",
    "inventory",
    "waiting",
    "audit",
    "refusals",
    "moves",
    "drain",
    "import",
    "recover",
    "events",
    "api",
    "views",
    "roles",
    "service_roles",
)
"""The files of ``sql/`` that may be loaded again, in the order in which they need each other."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x706F7274  # "port": one upgrade at a time per database
# Claims wait behind an upgrade that waits for a table's lock, and one of them may hold another table that the
# upgrade needs. So an upgrade gives up before PostgreSQL looks for deadlocks (a second), and tries again.
_LOCK_TIMEOUT = "500ms"
_PATIENCE = 30.0  # seconds
_BLOCKED = {"55P03", "40P01"}  # lock_not_available, deadlock_detected: PostgreSQL, appendix A

# Before the first change: so an upgrade that has to give up has done no work yet. In a large database it
# would not end otherwise, because claims that it blocks hold tables that it needs later.
_LOCK_TABLES = sa.text("""
    DO $$ BEGIN
        EXECUTE (SELECT format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE',
                               string_agg(quote_ident(tablename), ', ' ORDER BY tablename))
                   FROM pg_tables WHERE schemaname = 'public');
    END $$
""")


def upgrade(url: str) -> tuple[str | None, str]:
    """Upgrade the database at ``url``. Answers its revisions before and after; None: it was empty.

    Safe to start from several places at once, and to run again: the second run waits for the first, then
    loads the same functions and views again. Services may run meanwhile. The connecting role must own the
    schema. If it may also create roles, it makes ``portclaim_operator`` and ``portclaim_api``; ``portclaim db
    grant`` makes all roles.

    Raises :class:`InvalidConfiguration` if a newer version has upgraded the database, and
    :class:`ServiceUnavailable` with PostgreSQL's own words. Either way the database is unchanged.
    """
    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_blocked),
        wait=tenacity.wait_random(0.2, 1.0),
        stop=tenacity.stop_after_delay(_PATIENCE),
        reraise=True,
    )
    try:
        with _exclusive_connection(url) as connection:
            before, after = again(_upgrade_at_once, connection)
    except exc.DBAPIError as error:
        raise ServiceUnavailable(f"the database could not be upgraded: {str(error.orig).strip()}") from error
    assert after is not None  # noqa: S101 - for the type checker
    return before, after


def grant_again(connection: sa.Connection) -> None:
    """Give the roles that there are now what they may do. The connecting role must own the schema."""
    for name in ("roles", "service_roles"):
        _load(connection, name)


def _upgrade_at_once(connection: sa.Connection) -> tuple[str | None, str | None]:
    """All of it in one transaction. Answers the revisions before and after."""
    with connection.begin():
        before = _revision(connection)
        _upgrade(connection, before)
        return before, _revision(connection)


def _is_blocked(error: BaseException) -> bool:
    return isinstance(error, exc.DBAPIError) and getattr(error.orig, "pgcode", None) in _BLOCKED


def _upgrade(connection: sa.Connection, revision: str | None) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    connection.execute(sa.text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
    if revision is None:
        _load(connection, TABLES)
        command.stamp(config, "head")
    elif revision not in {script.revision for script in scripts.walk_revisions()}:
        raise InvalidConfiguration(
            f"the database has schema {revision}, which this version of Portclaim does not know "
            f"(it knows up to {scripts.get_current_head()}): use the newer version that upgraded the database"
        )
    else:
        if revision != scripts.get_current_head():
            connection.execute(_LOCK_TABLES)
        command.upgrade(config, "head")
    for name in REPEATABLE:
        _load(connection, name)


def _load(connection: sa.Connection, name: str) -> None:
    """Run a file of ``sql/``, as it is."""
    sql = (SQL / f"{name}.sql").read_text()
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _exclusive_connection(url: str) -> Iterator[sa.Connection]:
    """A connection that holds the advisory lock of upgrades until it is closed."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
        connection.commit()
        yield connection
