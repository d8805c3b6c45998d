"""``portclaim token``: tokens of the HTTP API. Over HTTP, or with the database of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import click

from portclaim.cli import documents
from portclaim.cli.options import age, output_option, reason_option, who_option
from portclaim.cli.session import Session, command
from portclaim.common.errors import InvalidConfiguration

if TYPE_CHECKING:
    import sqlalchemy as sa

    from portclaim.common.db.tokens import Role

T = TypeVar("T")

# A test compares these with the type, whose module imports SQLAlchemy.
ROLES = ("reader", "claimer", "operator")
_COLUMNS = ("name", "role", "project", "created_at", "expires_at", "revoked_at")


@click.group()
def token() -> None:
    """Make, list and revoke tokens of the HTTP API.

    With --url, this needs an operator's token. Without, it needs [database] connection.
    """


@command(group=token)
@click.option("--name", required=True, help="Who uses it. No other valid token has this name.")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    required=True,
    help="reader: sees. claimer: claims for its project. operator: may do everything.",
)
@click.option("--project", help="The only project whose claims it sees. A claimer needs one.")
@click.option(
    "--valid-for", callback=age, metavar="AGE", help="Until it expires, like 90d. Default: for ever."
)
@reason_option
@who_option
@output_option
@click.pass_obj
def create(
    session: Session,
    name: str,
    role: Role,
    project: str | None,
    valid_for: timedelta | None,
    reason: str | None,
    who: str,
    output: str,
) -> None:
    """Make a token and print it. Only its hash is kept, so nobody can read it again.

    Example: portclaim token create --name web --role claimer --project web

    Next: give it to a program as PORTCLAIM_TOKEN, or in the header Authorization: Bearer TOKEN.
    """
    from portclaim.common.db import audit, tokens

    if session.http is not None:
        seconds = None if valid_for is None else int(valid_for.total_seconds())
        body = {"name": name, "role": role, "project": project, "valid_for": seconds, "reason": reason}
        made = session.http.json("POST", "/v1/tokens", body)["token"]
    else:

        def in_transaction(connection: sa.Connection) -> str:
            audit.record(connection, who, "create-token", name, reason)
            return tokens.create(connection, name, role, project, valid_for)

        made = in_database(session, in_transaction)
    documents.show(output, {"name": name, "token": made}, lambda shown: click.echo(shown["token"]))


@command("list", group=token)
@click.option("--all", "every", is_flag=True, help="Also those that were revoked or have expired.")
@output_option
@click.pass_obj
def list_(session: Session, every: bool, output: str) -> None:
    """List the valid tokens: their names, never the tokens themselves.

    Example: portclaim token list

    Next: portclaim token revoke NAME makes one invalid.
    """
    from portclaim.cli import render
    from portclaim.cli.table import Table
    from portclaim.common.db import tokens

    if session.http is not None:
        rows = session.http.json("GET", f"/v1/tokens?all={str(every).lower()}")["tokens"]
    else:
        found = in_database(session, lambda c: tokens.tokens(c, every=every))
        rows = [{name: _text(value) for name, value in each._asdict().items()} for each in found]
    if output != "table":
        documents.document(output, rows)
        return
    table = Table(*(column.replace("_", " ") for column in _COLUMNS))
    for row in rows:
        table.add_row(*(str(row[column] or "-") for column in _COLUMNS))
    render.console().print(table)


@command(group=token)
@click.argument("name")
@reason_option
@who_option
@click.pass_obj
def revoke(session: Session, name: str, reason: str | None, who: str) -> None:
    """Make a token invalid, everywhere within 5 seconds.

    Example: portclaim token revoke web

    Next: portclaim token list --all still shows it.
    """
    from portclaim.common.db import tokens
    from portclaim.common.db.audit import Order

    if session.http is not None:
        query = "" if reason is None else f"?{urlencode({'reason': reason})}"
        session.http.json("DELETE", f"/v1/tokens/{quote(name, safe='')}{query}")
    else:
        in_database(session, lambda c: tokens.revoke(c, name, Order(who, reason)))


def _text(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def in_database(session: Session, work: Callable[[sa.Connection], T]) -> T:
    """Run work in the database of the configuration. Raises :class:`InvalidConfiguration` without one."""
    from portclaim.common.db.transaction import connect, in_transaction

    url = session.conf.database.connection
    if not url:
        raise InvalidConfiguration("set PORTCLAIM_URL and PORTCLAIM_TOKEN, or [database] connection")
    return in_transaction(connect(url, pool_size=1), work)
