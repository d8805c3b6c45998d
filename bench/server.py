"""A private PostgreSQL that keeps what it has committed, as in production. All contestants use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import sqlalchemy as sa

from portclaim.cli.embedded import start_postgresql

DURABLE = [
    "--listen_addresses=",
    "--max_connections=300",
    "--fsync=on",
    "--synchronous_commit=on",
    "--full_page_writes=on",
    "--autovacuum_naptime=10s",  # as in docker-compose.yml
    "--shared_buffers=1GB",
    "--max_wal_size=4GB",  # else the fleets are built between checkpoints
]


class Server(NamedTuple):
    """``url``: of its database `postgres`; ``pid``: of the parent of all its processes."""

    url: str
    pid: int

    def create_database(self, prefix: str) -> str:
        """An empty database of its own; answers its URL."""
        name = f"{prefix}_{uuid4().hex[:6]}"
        self.administer(f'CREATE DATABASE "{name}"')
        return sa.make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        self.administer(f'DROP DATABASE "{sa.make_url(url).database}" WITH (FORCE)')

    def administer(self, statement: str) -> None:
        """Run a statement that cannot be in a transaction."""
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(statement))

    def wal_bytes(self) -> int:
        """How much it has written to its log, in all."""
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return int(connection.scalar(sa.text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")))

    def settings(self) -> dict[str, str]:
        """What a reader of the results needs to know of it."""
        names = ["server_version", *(each[2:].partition("=")[0] for each in DURABLE[1:])]
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return {name: str(connection.scalar(sa.text(f"SHOW {name}"))) for name in names}


@contextmanager
def durable_postgresql(programs: Path | None = None) -> Iterator[Server]:
    """Such a server until the end of the ``with`` block. ``programs``: the folder of another release's."""
    process, url = start_postgresql(programs=programs, settings=DURABLE)
    try:
        yield Server(url, process.pid)
    finally:
        process.stop()
