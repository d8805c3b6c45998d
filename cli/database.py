"""``portclaim db``: the only commands that open the database."""

from __future__ import annotations

import re
from datetime import timedelta

import click

from portclaim.cli.session import Session, command
from portclaim.common.errors import InvalidConfiguration


@click.group()
def db() -> None:
    """Set the database up and keep it small. Needs [database] connection with a role that owns the schema."""


@command(db)
@click.pass_obj
def upgrade(session: Session) -> None:
    """Bring the schema to what this version needs; safe to run again, and from several places at once."""
    url = _url(session)
    from portclaim.common.db import migrate  # noqa: PLC0415 - takes longer to import than all that other commands need

    before, after = migrate.upgrade(url)
    click.echo(
        f"the schema was {before or 'empty'}, and is {after}" if before != after else f"the schema is {after}"
    )


_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}


def _age(_context: click.Context, _parameter: click.Parameter, text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,6})([dhm])", text)
    if found is None or int(found[1]) == 0:
        raise click.BadParameter(f"{text!r} is no age: write a number and d, h or m, like 90d")
    return int(found[1]) * _UNITS[found[2]]


@command(db)
@click.option("--older-than", callback=_age, required=True, metavar="AGE", help="Like 90d, 12h or 30m.")
@click.option(
    "--batch",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="How many claims are looked at in one transaction.",
)
@click.pass_obj
def prune(session: Session, older_than: timedelta, batch: int) -> None:
    """Forget claims that ended longer ago than AGE, with all that they held and went through.

    Live claims are never touched, nor does anybody wait for this. The id of a forgotten claim may be used
    anew. [conductor] prune_after has it done every hour.
    """
    from sqlalchemy.exc import ProgrammingError  # noqa: PLC0415 - as above

    from portclaim.common.db.pruning import Pruning  # noqa: PLC0415
    from portclaim.common.db.transaction import connect  # noqa: PLC0415

    pruning = Pruning(connect(_url(session), pool_size=1), older_than, batch)
    try:
        while pruning.work():
            continue
    except ProgrammingError as error:
        raise InvalidConfiguration(
            f"this is no database of Portclaim's, or not upgraded yet: {str(error.orig).strip()}"
        ) from error
    click.echo(f"{pruning.pruned} claim{'' if pruning.pruned == 1 else 's'} forgotten")


def _url(session: Session) -> str:
    url: str | None = session.conf.database.connection
    if not url:
        raise InvalidConfiguration("[database] connection is not set")
    return url
