"""``portclaim audit``: what operators did. Over HTTP, or with the database of the configuration."""

from __future__ import annotations

from urllib.parse import urlencode

import click

from portclaim.cli import documents
from portclaim.cli.options import output_option
from portclaim.cli.session import Session, command
from portclaim.cli.tokens import in_database

_COLUMNS = ("at", "who", "action", "object", "reason")


@click.group()
def audit() -> None:
    """Show who did what to what, when and why.

    With --url, this needs an operator's token. Without, it needs [database] connection.
    """


@command("list", group=audit)
@click.option("--who", help="Only what this person or token did.")
@click.option("--action", help="Only this action, for example drain or force-release.")
@click.option("--object", "object_", help="Only what was done to this claim, host, port, token or quota.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="The most rows.")
@output_option
@click.pass_obj
def list_(
    session: Session, who: str | None, action: str | None, object_: str | None, limit: int, output: str
) -> None:
    """List what operators did, the newest first.

    Example: portclaim audit list --action drain

    Next: portclaim audit list --object HOST shows all that was done to a host.
    """
    from portclaim.cli import render
    from portclaim.cli.table import Table
    from portclaim.common.db import audit

    if session.http is not None:
        wanted = {"who": who, "action": action, "object": object_, "limit": limit}
        query = urlencode({name: value for name, value in wanted.items() if value is not None})
        rows = session.http.json("GET", f"/v1/audit?{query}")["acts"]
    else:
        found = in_database(session, lambda c: audit.acts(c, audit.Wanted(who, action, object_), limit))
        rows = [{**row._asdict(), "at": row.at.isoformat()} for row in found]
    if output != "table":
        documents.document(output, rows)
        return
    table = Table(*_COLUMNS)
    for row in rows:
        table.add_row(*(str(row[column] or "-") for column in _COLUMNS))
    render.console().print(table)
