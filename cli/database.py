"""``portclaim db``. Only these commands and ``portclaim import`` connect to the database."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from portclaim.cli.options import age, age_text, reason_option, who_option
from portclaim.cli.session import Session, command
from portclaim.common.errors import InvalidConfiguration

if TYPE_CHECKING:
    import sqlalchemy as sa

# A test compares these with those of the module, which imports SQLAlchemy.
ROLES = ("conductor", "scheduler", "api", "operator", "metrics")


@click.group()
def db() -> None:
    """Set up the database, upgrade it and prune its history.

    Needs [database] connection with the role that owns the schema.
    """


@command(group=db)
@click.pass_obj
def upgrade(session: Session) -> None:
    """Create or upgrade the schema for this version. Services may run meanwhile.

    Example: portclaim --config-file /etc/portclaim/portclaim.conf db upgrade

    It is safe to repeat, and to run in several places at once.

    Next: start or restart the services.
    """
    url = _url(session)
    from portclaim.common.db import migrate

    before, after = migrate.upgrade(url)
    click.echo(
        f"the schema was {before or 'empty'}, and is {after}" if before != after else f"the schema is {after}"
    )


@command(group=db)
@click.argument("role", required=False, type=click.Choice(ROLES))
@click.argument("user", required=False)
@click.pass_obj
def grant(session: Session, role: str | None, user: str | None) -> None:
    """Make a role for each service with the least that it needs. With ROLE and USER, give USER that role.

    Example: portclaim db grant conductor conductor_1

    Needs [database] connection with the role that owns the schema and may create roles (CREATEROLE), or a
    superuser. No service needs that. The roles are portclaim_conductor, portclaim_scheduler, portclaim_api,
    portclaim_operator and portclaim_metrics. They cannot log in: make users with CREATE USER. `db upgrade`
    gives the roles what a new release needs.

    Next: use such a user in [database] connection of each service.
    """
    if (role is None) != (user is None):
        raise click.UsageError("name a ROLE and a USER, or none of the two")
    from portclaim.common.db import grants

    if role is not None and user is not None:
        grants.give(_url(session), role, user)
        click.echo(f"{user} has the role portclaim_{role}")
    else:
        made = grants.make_roles(_url(session))
        click.echo(f"made: {', '.join(made)}" if made else "all roles are there, and have what they need")


@command(group=db)
@click.option("--older-than", callback=age, required=True, metavar="AGE", help="For example 90d, 12h or 30m.")
@click.option(
    "--batch",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="How many claims to read in one transaction.",
)
@reason_option
@who_option
@click.pass_obj
def prune(session: Session, older_than: timedelta, batch: int, reason: str | None, who: str) -> None:
    """Delete claims that ended longer ago than AGE, with their history.

    Example: portclaim db prune --older-than 90d

    Live claims are never deleted, and other transactions do not wait. The id of a deleted claim may be used
    again. The audit records it, unless there was nothing to delete.

    Next: set [conductor] prune_after, and a conductor does this every hour.
    """
    from sqlalchemy.exc import ProgrammingError

    from portclaim.common.db import audit
    from portclaim.common.db.pruning import Pruning
    from portclaim.common.db.transaction import connect

    def record(connection: sa.Connection) -> None:
        audit.record(
            connection, who, "prune", f"claims that ended more than {age_text(older_than)} ago", reason
        )

    pruning = Pruning(connect(_url(session), pool_size=1), older_than, batch, record)
    try:
        while pruning.work():
            continue
    except ProgrammingError as error:
        raise InvalidConfiguration(
            "the database has no Portclaim schema, or an old one: run `portclaim db upgrade` "
            f"({str(error.orig).strip()})"
        ) from error
    click.echo(f"{pruning.pruned} claim{'' if pruning.pruned == 1 else 's'} deleted")


def _url(session: Session) -> str:
    url: str | None = session.conf.database.connection
    if not url:
        raise InvalidConfiguration("[database] connection is not set")
    return url
