"""Statements that PostgreSQL parses and plans once per connection, each a transaction of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg2
import sqlalchemy as sa
from sqlalchemy import exc

from portclaim.common.db.transaction import persistently

_TYPED = re.compile(r"(?<!:):([a-z_]+)::((?:double precision|[a-z]+)(?:\[\])?)")
_ANY = re.compile(r"(?<!:):([a-z_]+)")


class Prepared:
    """A named statement with typed parameters, written ``:name::type`` at each one's first mention.

    psycopg2 has no prepared statements of its own, so this speaks PREPARE and EXECUTE. A parameter
    is mentioned with its type once, and without it anywhere else.

    SQLAlchemy lends the connection, and the statement goes straight to the driver: its layers above
    cost ten times what the driver does, and a claim little more than that in all (docs/performance.md).
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
        """Execute with the parameters in ``facts``, which may hold others too.

        One round trip. Done again on a passing fault, as
        :func:`~portclaim.common.db.transaction.in_transaction` does, **so only for what looks up its own
        outcome first**, with the same errors.
        """
        return persistently(lambda: self._rows(engine, facts))

    def value(self, engine: sa.Engine, facts: Mapping[str, Any]) -> Any:
        """The same, of a statement whose answer is one row of one column."""
        [(value,)] = self.rows(engine, facts)
        return value

    def _rows(self, engine: sa.Engine, facts: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        try:
            lent = engine.raw_connection()
        except psycopg2.Error as error:
            raise self._failed(error, lost=True) from error
        driver: Any = lent.dbapi_connection
        try:
            driver.autocommit = True
            with driver.cursor() as cursor:
                known = lent.info.setdefault("prepared", set())
                if self.name not in known:
                    cursor.execute(self._prepare, {})
                    known.add(self.name)
                cursor.execute(self._execute, facts)
                rows: list[tuple[Any, ...]] = cursor.fetchall()
            driver.autocommit = False
        except psycopg2.Error as error:
            if driver.closed or _comes_from_no_server(error):
                lent.invalidate(error)
                engine.dispose()  # what one connection has met, the others will
                raise self._failed(error, lost=True) from error
            driver.autocommit = False
            raise self._failed(error, lost=False) from error
        finally:
            lent.close()
        return rows

    def _failed(self, error: psycopg2.Error, *, lost: bool) -> BaseException:
        """The error as SQLAlchemy would raise it."""
        return exc.DBAPIError.instance(
            self._execute, None, error, psycopg2.Error, connection_invalidated=lost
        )


def _comes_from_no_server(error: psycopg2.Error) -> bool:
    """What a server has to say has a code. That the connection is lost psycopg2 may not have noticed yet."""
    return error.pgcode is None and type(error) in {psycopg2.DatabaseError, psycopg2.OperationalError}
