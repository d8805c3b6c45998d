"""``portclaim quota``: how much the claims of a project may have. Over HTTP, or with the database."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import click

from portclaim.cli import documents
from portclaim.cli.options import output_option, reason_option, who_option
from portclaim.cli.session import Session, command
from portclaim.cli.tokens import in_database

_COLUMNS = ("project", "alias", "pfs", "max_pfs", "vfs", "max_vfs", "waiting", "max_waiting")
_PAGE = 1000


@click.group()
def quota() -> None:
    """Set, list and unset how many devices the claims of a project may have.

    With --url, this needs an operator's token. Without, it needs [database] connection.
    """


_alias = click.option("--alias", help="Count what is requested by this alias. Default: everything.")
_limit = click.IntRange(0, 2**31 - 1)


@command("set", group=quota)
@click.argument("project")
@_alias
@click.option("--pfs", "max_pfs", type=_limit, help="PFs, and devices without VFs. Default: no limit.")
@click.option("--vfs", "max_vfs", type=_limit, help="VFs. Default: no limit.")
@click.option("--waiting", "max_waiting", type=_limit, help="Claims that wait. Default: no limit.")
@reason_option
@who_option
@click.pass_obj
def set_(
    session: Session,
    project: str,
    alias: str | None,
    max_pfs: int | None,
    max_vfs: int | None,
    max_waiting: int | None,
    reason: str | None,
    who: str,
) -> None:
    """Set a quota of PROJECT. Claims that are beyond it already stay.

    Example: portclaim quota set web --alias nic-vf --vfs 16 --waiting 4

    Next: portclaim quota list shows how much of it is used.
    """
    from portclaim.common.db import quotas
    from portclaim.common.db.audit import Order

    limits = quotas.Limits(max_pfs, max_vfs, max_waiting)
    if session.http is not None:
        body = {"alias": alias, **limits._asdict(), "reason": reason}
        session.http.json("PUT", f"/v1/quotas/{quote(project, safe='')}", body)
    else:
        in_database(session, lambda c: quotas.set_quota(c, project, alias, limits, Order(who, reason)))


@command("list", group=quota)
@click.option("--project", help="Only of this project.")
@output_option
@click.pass_obj
def list_(session: Session, project: str | None, output: str) -> None:
    """List quotas and how much of each is used.

    Example: portclaim quota list --project web

    Next: portclaim quota set PROJECT changes one.
    """
    from portclaim.cli import render
    from portclaim.cli.table import Table
    from portclaim.common.db import quotas

    if session.http is not None:
        rows = _over_http(session, project)
    else:
        rows = [row._asdict() for row in in_database(session, lambda c: quotas.quotas(c, project))]
    if output != "table":
        documents.document(output, rows)
        return
    table = Table(*(column.replace("_", " ") for column in _COLUMNS))
    for row in rows:
        table.add_row(*("-" if row[column] is None else str(row[column]) for column in _COLUMNS))
    render.console().print(table)


@command(group=quota)
@click.argument("project")
@_alias
@reason_option
@who_option
@click.pass_obj
def unset(session: Session, project: str, alias: str | None, reason: str | None, who: str) -> None:
    """Remove a quota of PROJECT.

    Example: portclaim quota unset web --alias nic-vf

    Next: portclaim quota list shows those that are left.
    """
    from portclaim.common.db import quotas
    from portclaim.common.db.audit import Order

    if session.http is not None:
        said = {name: value for name, value in (("alias", alias), ("reason", reason)) if value is not None}
        session.http.json("DELETE", f"/v1/quotas/{quote(project, safe='')}?{urlencode(said)}")
    else:
        in_database(session, lambda c: quotas.unset_quota(c, project, alias, Order(who, reason)))


def _over_http(session: Session, project: str | None) -> list[dict[str, Any]]:
    assert session.http is not None  # noqa: S101 - for the type checker
    rows: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"limit": _PAGE} | ({} if project is None else {"project": project})
    after: str | None = ""
    while after is not None:
        query = urlencode(asked | ({"after": after} if after else {}))
        page = session.http.json("GET", f"/v1/quotas?{query}")
        rows += page["quotas"]
        after = page["after"]
    return rows
