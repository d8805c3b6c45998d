"""Statements that PostgreSQL parses and plans once per connection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

_TYPED = re.compile(r"(?<!:):([a-z_]+)::((?:double precision|[a-z]+)(?:\[\])?)")
_ANY = re.compile(r"(?<!:):([a-z_]+)")


class Prepared:
    """A named statement with typed parameters, written ``:name::type`` at each one's first mention.

    psycopg2 has no prepared statements of its own, so this speaks PREPARE and EXECUTE. A parameter
    is mentioned with its type once, and without it anywhere else.
    """

    def __init__(self, name: str, sql: str) -> None:
        self.name = name
        types: dict[str, str] = dict(_TYPED.findall(sql))
        self._parameters = list(types)
        numbers = {parameter: number for number, parameter in enumerate(types, start=1)}
        body = _ANY.sub(lambda found: f"${numbers[found[1]]}", sql).replace("%", "%%")
        self._prepare = f"PREPARE {name} ({', '.join(types.values())}) AS {body}"
        self._execute = f"EXECUTE {name} ({', '.join(f'%({parameter})s' for parameter in types)})"

    def run(self, connection: sa.Connection, facts: Mapping[str, Any]) -> sa.CursorResult[Any]:
        """Execute with the parameters in ``facts``, which may hold others too."""
        known = connection.info.setdefault("prepared", set())
        if self.name not in known:
            connection.exec_driver_sql(self._prepare)
            known.add(self.name)
        return connection.exec_driver_sql(
            self._execute, {parameter: facts[parameter] for parameter in self._parameters}
        )
