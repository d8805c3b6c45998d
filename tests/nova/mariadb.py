"""The same cell on MariaDB: a private server, and a copy of the tables that Nova has made on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import sqlalchemy as sa

from portclaim.cli.supervisor import SupervisedProcess, supervise
from tests.nova import cell
from tests.support.rabbitmq import free_ports

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


def is_installed() -> bool:
    return shutil.which("mariadbd", path=PATH) is not None


def start_mariadb() -> tuple[SupervisedProcess, str]:
    """Start an empty server, without system tables, and answer its URL. It ends when this process ends."""
    directory = Path(tempfile.mkdtemp(prefix="portclaim-mariadb-"))
    (directory / "data").mkdir()
    [port] = free_ports(1)
    server = supervise(
        str(shutil.which("mariadbd", path=PATH)),
        "--no-defaults",
        *(["--user=root"] if os.geteuid() == 0 else []),
        "--skip-grant-tables",  # they would be system tables
        f"--datadir={directory / 'data'}",
        f"--socket={directory / 'socket'}",
        f"--pid-file={directory / 'pid'}",
        f"--port={port}",
        "--bind-address=127.0.0.1",
        ready="ready for connections",
        log=directory / "log",
        directory=directory,
    )
    return server, f"mysql+pymysql://root@127.0.0.1:{port}/"


def copy_cell(postgresql_url: str, url: str) -> None:
    """Make the cell's tables with their rows in the database ``nova`` of the server."""
    source = sa.create_engine(postgresql_url, poolclass=sa.NullPool)
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        connection.execute(sa.text("CREATE DATABASE nova"))
    target = sa.create_engine(f"{url}nova", poolclass=sa.NullPool)
    found, made = sa.MetaData(), sa.MetaData()
    found.reflect(source, only=cell.TABLES)
    for name in cell.TABLES:
        columns = [sa.Column(column.name, _plain(column.type)) for column in found.tables[name].columns]
        sa.Table(name, made, *columns)
    with target.begin() as connection:
        made.create_all(connection)
        with source.connect() as rows:
            for name in cell.TABLES:
                values = [dict(row) for row in rows.execute(found.tables[name].select()).mappings()]
                connection.execute(made.tables[name].insert(), values)


def _plain(kind: sa.types.TypeEngine) -> sa.types.TypeEngine:
    """A type of MariaDB's for it."""
    if isinstance(kind, sa.Integer | sa.String | sa.Boolean | sa.DateTime):
        return kind.as_generic()
    return sa.Double() if isinstance(kind, sa.Numeric) else sa.String(255)
