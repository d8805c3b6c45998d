"""The operators' views, from the comments in a database that has just been set up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import sqlalchemy as sa

from portclaim.cli.embedded import postgresql
from portclaim.common.db import migrate

from .text import cell, table

_INTRODUCTION = """\
# SQL views

What operators can read in PostgreSQL. The role `portclaim_operator` may read these views and nothing else.
[Questions, answered in SQL](../operator-sql.md) uses them. The [changelog](../project/changelog.md) says when
a version changes a column.
"""

_COLUMNS = sa.text("""
    SELECT view.relname, obj_description(view.oid), attname, format_type(atttypid, atttypmod),
           col_description(view.oid, attnum)
      FROM pg_class view
      JOIN pg_attribute ON attrelid = view.oid AND attnum > 0
     WHERE view.relkind = 'v' AND view.relnamespace = 'public'::regnamespace
       AND has_table_privilege('portclaim_operator', view.oid, 'SELECT')
     ORDER BY view.relname, attnum
""")


class Column(NamedTuple):
    """A column of a view, with what is said about both."""

    view: str
    about_view: str | None
    name: str
    type: str
    about: str | None


def page() -> str:
    return _INTRODUCTION + "".join(
        _section(name, list(columns)) for name, columns in groupby(columns(), lambda each: each.view)
    )


def columns() -> Iterator[Column]:
    """The columns of all views that operators may read."""
    with postgresql() as url:
        migrate.upgrade(url)
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            yield from map(Column._make, connection.execute(_COLUMNS).all())
        engine.dispose()


def _section(name: str, columns: list[Column]) -> str:
    rows = [[f"`{each.name}`", each.type, cell(_said(each.about, f"{name}.{each.name}"))] for each in columns]
    about = _said(columns[0].about_view, name)
    return f"\n## {name} {{ #{name} }}\n\n{about[:1].upper()}{about[1:]}.\n\n" + table(
        ["Column", "Type", "Meaning"], rows
    )


def _said(comment: str | None, about: str) -> str:
    if not comment:
        raise LookupError(f"{about} has no comment: give it one in common/db/sql/views.sql")
    return comment
