"""Refuse to start a service on a database whose schema is older than its code."""

from __future__ import annotations

import sqlalchemy as sa
from oslo_config import cfg
from sqlalchemy import exc

from portclaim.common.db.schema_version import HEAD
from portclaim.common.db.transaction import connect
from portclaim.common.errors import InvalidConfiguration

_REVISION = sa.text("SELECT version_num FROM alembic_version")
_UNDEFINED_TABLE = "42P01"  # PostgreSQL, appendix A


def require_schema(conf: cfg.ConfigOpts) -> None:
    """Raise :class:`InvalidConfiguration` if the schema of ``[database] connection`` is older than the code.

    A newer schema is accepted, so that services of the last release go on during an upgrade. A database that
    does not answer is not checked: services may start before it.
    """
    engine = connect(conf.database.connection, pool_size=1)
    try:
        with engine.connect() as connection:
            found: str | None = connection.scalar(_REVISION)
    except exc.DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != _UNDEFINED_TABLE:
            return
        found = None
    finally:
        engine.dispose()
    if found is None or found < HEAD:
        raise InvalidConfiguration(
            f"the database has {'no schema' if found is None else f'schema {found}'}, and this version needs "
            f"schema {HEAD}: run `portclaim db upgrade` first"
        )
