"""``portclaim host list|drain|undrain|remove``."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

import click

from portclaim.cli.options import limit_option, output_option, say_more
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from portclaim.common.rpc.operator_messages import Hosts, HostSummary

_port = click.option("--port", "address", metavar="ADDRESS", help="Only this port, by its PF's address.")
_reason = click.option("--reason", required=True, help="Why. Refusals, lists and views show it.")


@command("list")
@click.option("--host", "name", help="Only this host.")
@limit_option
@output_option
@click.pass_obj
def list_(session: Session, name: str | None, limit: int, output: str) -> None:
    """List hosts: whether they take claims, and how many devices are free and held.

    Example: portclaim host list

    Next: portclaim tree --host HOST shows the devices of a host.
    """
    from portclaim.cli import render
    from portclaim.common.rpc.operator_messages import HostFilter

    found = session.scheduler.hosts(HostFilter(host=name, limit=limit))
    render.as_json(found.hosts) if output == "json" else render.console().print(_table(found))
    say_more(found.more, limit)


@command()
@click.argument("host")
@_port
@_reason
@click.pass_obj
def drain(session: Session, host: str, address: str | None, reason: str) -> None:
    """Stop new claims on HOST, or on one of its ports. Its present claims stay until they are released.

    Example: portclaim host drain compute-7 --reason "new power supply"

    Next: portclaim devices --host HOST --output json names the claims on it. Move or release them to empty
    the host.
    """
    stay = session.scheduler.drain(host, reason, address)
    click.echo(f"{_place(host, address)} takes no new claims; {_live(stay)} on it")


@command()
@click.argument("host")
@_port
@click.pass_obj
def undrain(session: Session, host: str, address: str | None) -> None:
    """Allow claims on HOST, or on one of its ports, again.

    Example: portclaim host undrain compute-7

    A removed host takes claims again when it is undrained and its agent reports.

    Next: portclaim host list shows whether the host is up.
    """
    session.scheduler.undrain(host, address)
    click.echo(f"{_place(host, address)} takes claims again")


@command()
@click.argument("host")
@_reason
@click.option("--who", default=getpass.getuser, show_default="your user name here", help="Who decides this.")
@click.option("--force", is_flag=True, help="End its live claims too, as release --force does. DANGEROUS.")
@click.pass_obj
def remove(session: Session, host: str, reason: str, who: str, force: bool) -> None:
    """Remove HOST for good. Stop its agent first.

    Example: portclaim host remove compute-9 --reason sold

    Its devices are marked as removed; their history stays. If its agent reports again, the devices come back,
    but the host stays drained until `host undrain`. A host with live claims is refused. With --force they end
    although the devices are not detached: first make sure that the host is off (see release --help).

    Next: portclaim host list shows the host as drained and without devices.
    """
    ended = session.scheduler.remove_host(host, who, reason, force=force)
    click.echo(f"{host} is removed")
    if ended:
        click.echo(_DANGER.format(claims=_live(ended), host=host), err=True)


def _table(found: Hosts) -> Table:
    from portclaim.cli import render

    table = render.table_of(
        "host",
        "last report",
        "PFs free",
        "PFs held",
        "VFs free",
        "VFs held",
        "claims",
        "state",
        "drained ports",
    )
    for each in found.hosts:
        table.add_row(
            each.host,
            f"{each.agent_silent_for:.0f} s ago",
            str(each.pfs_available),
            str(each.pfs_held),
            str(each.vfs_available),
            str(each.vfs_held),
            str(each.live_claims),
            _state(each),
            ", ".join(f"{address} ({reason})" for address, reason in each.drained_ports.items()),
        )
    return table


def _state(shown: HostSummary) -> Text:
    from portclaim.cli import render

    state = render.status("silent" if shown.is_silent else "up")
    return state.append(f", drained: {shown.drained_reason}") if shown.drained_reason else state


_DANGER = """\
DANGER: {claims} ended, and the devices were not detached. If host {host} still runs, the instances still run
and use them. Do not start the instances elsewhere before you are sure that {host} is off."""


def _place(host: str, address: str | None) -> str:
    return host if address is None else f"port {address} of {host}"


def _live(claims: int) -> str:
    return f"{claims} live claim{'' if claims == 1 else 's'}"
