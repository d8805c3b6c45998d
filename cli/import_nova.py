"""``portclaim import nova``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from portclaim.cli import documents
from portclaim.cli.options import output_option, reason_option, who_option
from portclaim.cli.secret_options import given_secretly
from portclaim.cli.session import Session, command
from portclaim.common.errors import InvalidConfiguration

if TYPE_CHECKING:
    from portclaim.cli.nova.plan import HostPlan


@click.group("import")
def import_() -> None:
    """Take over what Nova has given out, without stopping a guest."""


@command(group=import_)
@click.option(
    "--database",
    "url",
    callback=given_secretly,
    envvar="PORTCLAIM_NOVA_DATABASE",
    show_envvar=True,
    metavar="URL",
    help="The cell's database: postgresql://… or mysql://…, as its nova.conf has it. It is only read. With a "
    "password, set PORTCLAIM_NOVA_DATABASE to it, or PORTCLAIM_NOVA_DATABASE_FILE to a file that has it.",
)
@click.option("--host", "hosts", multiple=True, help="Only this host. May be repeated. Default: all.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@reason_option
@who_option
@output_option
@click.pass_obj
def nova(
    session: Session,
    url: str | None,
    hosts: tuple[str, ...],
    dry_run: bool,
    reason: str | None,
    who: str,
    output: str,
) -> None:
    """Take over a Nova cell: hosts, PCI devices, and a claim for each instance that has some.

    Example: portclaim import nova --dry-run

    PORTCLAIM_NOVA_DATABASE is the URL of its database, as postgresql://nova:secret@db/nova_cell1. It also
    needs [database] connection with the role that owns the schema. No guest and no host is touched, and
    Nova's database is only read. The claims are allocated. When the agent of a host starts, it finds their
    devices in the guests. Devices that no instance has are unavailable until then.

    What cannot be taken over is listed as a difference. It stays unavailable, and its port is drained. It is
    safe to repeat: the second run changes nothing, and a run after a failure does what is left. The audit
    records each host that is imported.

    Next: how-to/take-over-nova in the documentation says what to do in which order.
    """
    from sqlalchemy.exc import ProgrammingError

    from portclaim.cli.nova import show
    from portclaim.cli.nova.carry_out import carry_out, plan_cell
    from portclaim.cli.nova.cell import read_cell
    from portclaim.common.db.audit import Order
    from portclaim.common.db.transaction import connect

    if url is None:
        raise click.UsageError("set PORTCLAIM_NOVA_DATABASE to the URL of the cell's database")
    if not session.conf.database.connection:
        raise InvalidConfiguration("[database] connection is not set")
    cell = read_cell(url, hosts)
    engine = connect(session.conf.database.connection, pool_size=1)
    done: list[HostPlan] = []
    try:
        plans = plan_cell(engine, cell)
        if not dry_run:
            carry_out(engine, plans, Order(who, reason), done.append)
    except ProgrammingError as error:
        raise InvalidConfiguration(
            "[database] connection has no Portclaim schema, an old one, or one that another role owns: "
            f"run `portclaim db upgrade` ({str(error.orig).strip()})"
        ) from error
    finally:
        if done and len(done) < len(plans):
            click.echo(f"{len(done)} of {len(plans)} hosts are done: import again for the others", err=True)
    if output != "table":
        documents.document(output, {"dry_run": dry_run, **show.as_rows(plans, is_dry_run=dry_run)})
        return
    show.tables(plans)
    click.echo(show.summary(plans, is_dry_run=dry_run))
