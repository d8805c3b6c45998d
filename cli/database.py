"""``portclaim db``: the only commands that open the database."""

from __future__ import annotations

import click

from cli.session import Session, command
from common.errors import InvalidConfiguration


@click.group()
def db() -> None:
    """Set the database up. Needs [database] connection with a role that owns the schema."""


@command(db)
@click.pass_obj
def upgrade(session: Session) -> None:
    """Bring the schema to what this version needs; safe to run again, and from several places at once."""
    url = session.conf.database.connection
    if not url:
        raise InvalidConfiguration("[database] connection is not set")
    from common.db import migrate  # noqa: PLC0415 - takes longer to import than all that other commands need

    before, after = migrate.upgrade(url)
    click.echo(
        f"the schema was {before or 'empty'}, and is {after}" if before != after else f"the schema is {after}"
    )
