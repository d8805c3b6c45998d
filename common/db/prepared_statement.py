"""Statements that PostgreSQL parses and plans once per connection. Each runs in a transaction of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
import sqlalchemy as sa
from sqlalchemy import exc

from portclaim.common import tracing
from portclaim.common.db.transaction import READ_ONLY, persistently

_TYPED = re.compile(r"(?<!:):([a-z_]+)::((?:double precision|[a-z]+)(?:\[\])?)")
_IN_TRACES = "SELECT set_config('portclaim.traceparents', %(traceparents)s, true)"
_ANY = re.compile(r"(?<!:):([a-z_]+)")


class PreparedStatement:
    """A named statement with typed parameters, written ``:name::type`` at each one's first mention.

    psycopg2 has no prepared statements, so this class sends PREPARE and EXECUTE. A parameter has its type at
    its first mention only.

    The connection comes from SQLAlchemy's pool, and the statement goes straight to the driver: SQLAlchemy's
    other layers take ten times as long as the driver (docs/performance.md).
    """

    def __init__(self, name: str, sql: str) -> None:
        self.name = name
        types: dict[str, str] = dict(_TYPED.findall(sql))
        numbers = {parameter: number for number, parameter in enumerate(types, start=1)}
        body = _ANY.sub(lambda found: f"${numbers[found[1]]}", sql).replace("%", "%%")
        parameters = f"({', '.join(types.values())})" if types else ""
        arguments = f"({', '.join(f'%({parameter})s' for parameter in types)})" if types else ""
        self._prepare = f"PREPARE {name} {parameters} AS {body}"
        self._execute = f"EXECUTE {name} {arguments}"

    def rows(self, engine: sa.Engine, facts: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute with the parameters in ``facts``, which may hold others too. ``traces`` of them: the traces
        of claims that the statement is about, by claim.

        One round trip. Done again on a passing fault, as
        :func:`~portclaim.common.db.transaction.in_transaction` does, **so only for what looks up its own
        outcome first**, with the same errors.
        """
        return persistently(lambda: self._rows(engine, facts))

    def value(self, engine: sa.Engine, facts: Mapping[str, Any]) -> Any:
        """The value of a statement that answers one row with one column."""
        [(value,)] = self.rows(engine, facts)
        return value

    def pages(
        self,
        engine: sa.Engine,
        facts: Mapping[str, Any],
        next_page: Callable[[list[tuple[Any, ...]]], Mapping[str, Any] | None],
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Execute again and again in one transaction, which sees the database as of one moment.

        ``next_page`` answers from the rows of a page which parameters are different for the next one; None:
        that was the last. Raises SQLAlchemy's errors: it is not done again.
        """
        with self._driver(engine, autocommit=False) as (driver, known):
            driver.set_session(isolation_level="REPEATABLE READ", readonly=True)
            try:
                changed: Mapping[str, Any] | None = {}
                while changed is not None:
                    facts = {**facts, **changed}
                    rows = self._executed(driver, known, facts)
                    yield rows
                    changed = next_page(rows)
            finally:
                driver.rollback()
                driver.set_session(isolation_level="DEFAULT", readonly="DEFAULT")

    def _rows(self, engine: sa.Engine, facts: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        with self._driver(engine, autocommit=True) as (driver, known):
            return self._executed(driver, known, facts)

    def _executed(self, driver: Any, known: set[str], facts: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        with driver.cursor() as cursor:
            if self.name not in known:
                cursor.execute(self._prepare, {})
                known.add(self.name)
            traces: Mapping[str, str] | None = facts.get("traces")
            if traces is None:
                cursor.execute(self._execute, facts)
            else:  # in the same round trip: the steps that it writes belong to traces
                with tracing.statement(self.name, traces.values()):
                    cursor.execute(
                        f"{_IN_TRACES}; {self._execute}", {**facts, "traceparents": json.dumps(traces)}
                    )
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows

    @contextmanager
    def _driver(self, engine: sa.Engine, *, autocommit: bool) -> Iterator[tuple[Any, set[str]]]:
        """A connection of the driver, and the names of the statements that are prepared on it."""
        try:
            connection = engine.raw_connection()
        except psycopg2.Error as error:
            raise self._failed(error, lost=True) from error
        driver: Any = connection.dbapi_connection
        try:
            driver.autocommit = autocommit
            yield driver, connection.info.setdefault("prepared", set())
            driver.autocommit = False
        except psycopg2.Error as error:
            if driver.closed or _comes_from_no_server(error) or error.pgcode == READ_ONLY:
                connection.invalidate(error)
                engine.dispose()  # the other connections are lost too
                raise self._failed(error, lost=True) from error
            driver.autocommit = False
            raise self._failed(error, lost=False) from error
        finally:
            connection.close()

    def _failed(self, error: psycopg2.Error, *, lost: bool) -> BaseException:
        """The error as SQLAlchemy would raise it."""
        return exc.DBAPIError.instance(
            self._execute, None, error, psycopg2.Error, connection_invalidated=lost
        )


def _comes_from_no_server(error: psycopg2.Error) -> bool:
    """Errors of the server have an SQLSTATE.

    Without one, the connection is lost, even if psycopg2 says otherwise.
    """
    return error.pgcode is None and type(error) in {psycopg2.DatabaseError, psycopg2.OperationalError}
