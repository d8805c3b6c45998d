"""The peer of first reports: ``COPY`` of the same rows into the same tables."""

from __future__ import annotations

import io
import time
from typing import NamedTuple

import sqlalchemy as sa

from bench.server import Server
from portclaim.common.db import migrate

# A trigger writes device_events.
_TABLES = {
    "compute_nodes": "host LIKE 'storm-%'",
    "pools": "true",
    "pci_devices": "compute_node_id IN (SELECT id FROM compute_nodes WHERE host LIKE 'storm-%')",
    "port_pools": "compute_node_id IN (SELECT id FROM compute_nodes WHERE host LIKE 'storm-%')",
}

_COLUMNS = sa.text("""
    SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute
     WHERE attrelid = cast(:table AS regclass) AND attnum > 0 AND attgenerated = '' AND NOT attisdropped
""")


class Rows(NamedTuple):
    """Rows of a table as ``COPY`` writes them."""

    table: str
    columns: str
    text: bytes


def rows_of(url: str) -> list[Rows]:
    """What the reports of a storm have written into this database."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    found = []
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        for table, which in _TABLES.items():
            columns = str(connection.scalar(_COLUMNS, {"table": table}))
            buffer = io.BytesIO()
            cursor.copy_expert(
                f"COPY (SELECT {columns} FROM {table} WHERE {which} ORDER BY 1) TO STDOUT", buffer
            )
            found.append(Rows(table, columns, buffer.getvalue()))
    return found


def seconds_to_copy(server: Server, rows: list[Rows]) -> float:
    """How long ``COPY`` takes for these rows, in one transaction, into an empty database with our schema."""
    url = server.create_database("copy")
    migrate.upgrade(url)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    began = time.monotonic()
    with engine.begin() as connection:
        cursor = connection.connection.cursor()
        for each in rows:
            cursor.copy_expert(f"COPY {each.table} ({each.columns}) FROM STDIN", io.BytesIO(each.text))
    took = time.monotonic() - began
    server.drop_database(url)
    return took
