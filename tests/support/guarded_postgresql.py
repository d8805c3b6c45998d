"""A PostgreSQL that asks for passwords, unlike the one that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from portclaim.cli.embedded import SETTINGS, start_postgresql
from tests.support.engines import run_owner
from tests.support.rabbitmq import free_ports

_RULES = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass
class GuardedPostgreSQL:
    """``superuser``: the URL of its socket, where nobody needs a password. ``directory`` has its log."""

    superuser: str
    port: int
    directory: Path

    def url(self, user: str, password: str) -> str:
        """The URL of the database that belongs to a user, over TCP."""
        return f"postgresql+psycopg2://{user}:{password}@127.0.0.1:{self.port}/{user}"

    def create(self, user: str, password: str) -> str:
        """A user who owns a database, and may make roles; its URL."""
        self.administer(f"CREATE ROLE {user} LOGIN CREATEROLE PASSWORD '{password}'")
        self.administer(f"CREATE DATABASE {user} OWNER {user}")
        return self.url(user, password)

    def set_password(self, user: str, password: str) -> None:
        """From now on the user has this password, and no connection."""
        self.administer(f"ALTER ROLE {user} PASSWORD '{password}'")
        self.administer(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'")

    def administer(self, statement: str, database: str = "postgres") -> list[tuple[str, ...]]:
        """Run a statement as the superuser; answers the rows."""
        url = sa.make_url(self.superuser).set(database=database)
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            done = connection.exec_driver_sql(statement)
            return [tuple(map(str, row)) for row in done] if done.returns_rows else []

    def contents(self, database: str) -> str:
        """All rows of all tables as text."""
        tables = self.administer("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database)
        rows = [self.administer(f"SELECT t::text FROM public.{table} t", database) for (table,) in tables]
        return "\n".join(row for found in rows for (row,) in found)


@contextmanager
def guarded_postgresql() -> Iterator[GuardedPostgreSQL]:
    """Up until the end of the block."""
    [port] = free_ports(1)
    settings = [*SETTINGS[1:], "--listen_addresses=127.0.0.1", f"--port={port}"]
    server, url = start_postgresql(run_owner(), settings=settings)
    try:
        directory = Path(str(sa.make_url(url).query["host"]))
        guarded = GuardedPostgreSQL(f"{url}&port={port}", port, directory)
        (directory / "data/pg_hba.conf").write_text(_RULES)
        guarded.administer("SELECT pg_reload_conf()")
        yield guarded
    finally:
        server.stop()
