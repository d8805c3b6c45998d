"""Lets something happen between two SQL statements of a program."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from portclaim.common.db.prepared_statement import PreparedStatement


def after_each_statement(
    monkeypatch: pytest.MonkeyPatch, engine: sa.Engine, then: Callable[[str], object]
) -> None:
    """Call `then` after every statement, with its text or, of a prepared one, its name.

    Statements of `then` itself do not count.
    """
    busy = False

    def happen(statement: str) -> None:
        nonlocal busy
        if not busy:
            busy = True
            try:
                then(statement)
            finally:
                busy = False

    def executed(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        happen(statement)

    def rows(
        statement: PreparedStatement, engine: sa.Engine, facts: Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        answer = read(statement, engine, facts)
        happen(statement.name)
        return answer

    read = PreparedStatement.rows
    monkeypatch.setattr(PreparedStatement, "rows", rows)
    sa.event.listen(engine, "after_cursor_execute", executed)
