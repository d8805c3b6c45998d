"""One private PostgreSQL per run, migrated once; each test gets its own copy of the migrated database.

`PORTCLAIM_POSTGRESQL=DIR` takes the programs of another release from this folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from portclaim.cli.embedded import start_postgresql
from portclaim.cli.supervisor import SupervisedProcess
from portclaim.common.db import grants, migrate
from tests.support.engines import shared

TEMPLATE = "template_portclaim"


def create_database(template: str = TEMPLATE) -> str:
    """Copy the migrated database (some 50 ms) and return the copy's SQLAlchemy URL.

    `template="template0"` gives an empty database instead, for tests of the migrations themselves.
    """
    name = f"test_{uuid4().hex[:12]}"
    _administer(f"CREATE DATABASE {name} TEMPLATE {template}")
    return _url(name)


def drop_database(url: str) -> None:
    """Remove a database that `create_database` made, whoever is still connected to it."""
    _administer(f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")


def _administer(statement: str) -> None:
    with _engine(_url("postgres")).connect() as connection:
        connection.execute(sa.text(statement))


def _url(database: str) -> str:
    cluster = sa.make_url(shared("postgresql", _start)["url"])
    return cluster.set(database=database).render_as_string(hide_password=False)


def _start(owner: int) -> tuple[Sequence[SupervisedProcess], dict[str, Any]]:
    programs = os.environ.get("PORTCLAIM_POSTGRESQL")
    server, url = start_postgresql(owner, Path(programs) if programs else None)
    with _engine(url).connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {TEMPLATE}"))
    template = sa.make_url(url).set(database=TEMPLATE).render_as_string(hide_password=False)
    migrate.upgrade(template)
    # Roles belong to the server. With them from the start, the order of tests does not change the grants.
    grants.make_roles(template)
    return [server], {"url": url}


def _engine(url: str) -> sa.Engine:
    return sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
