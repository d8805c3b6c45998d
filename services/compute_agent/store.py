"""A small durable store on this host: SQLite, written to the disk at every commit."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class LocalStore:
    """One file, for the threads of one process. What a transaction wrote survives SIGKILL and power loss."""

    def __init__(self, path: Path, schema: str) -> None:
        """Open or make the file; ``schema`` is SQL that may be run again (``IF NOT EXISTS``)."""
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self._connection.row_factory = sqlite3.Row
        # With a write-ahead log, one flush per commit makes it durable; readers are not blocked.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(schema)

    def rebuild(self, table: str, mark: str, schema: str) -> None:
        """If the definition of ``table`` does not contain ``mark``, make the table anew and keep its rows.

        New columns get their defaults. SQLite cannot change a constraint of a table. A process that is killed
        meanwhile has changed nothing.
        """
        with self._lock:
            query = "SELECT sql FROM sqlite_schema WHERE name = ?"
            (definition,) = self._connection.execute(query, (table,)).fetchone()
            if mark in definition:
                return
            query = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"
            indexes = [f"DROP INDEX {name};" for (name,) in self._connection.execute(query, (table,))]
            columns = ", ".join(
                name for _, name, *_ in self._connection.execute(f"PRAGMA table_info({table})")
            )
            self._connection.executescript(
                f"BEGIN IMMEDIATE; ALTER TABLE {table} RENAME TO outdated; {''.join(indexes)} {schema}"  # noqa: S608
                f" INSERT INTO {table} ({columns}) SELECT {columns} FROM outdated;"
                " DROP TABLE outdated; COMMIT;"
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction at a time. All of its changes take effect, or none."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk, for example, has rolled it back already
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
