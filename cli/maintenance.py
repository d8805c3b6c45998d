"""``portclaim host list|drain|undrain|remove|renew``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from portclaim.cli.completing import HOST
from portclaim.cli.listing import ListOptions, Row, list_options, show, table
from portclaim.cli.options import reason_option, who_option
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from rich.text import Text

    from portclaim.common.rpc.operator_messages import HostSummary

_port = click.option("--port", "address", metavar="ADDRESS", help="Only this port, by its PF's address.")
_reason = click.option("--reason", required=True, help="Why. Refusals, lists and views show it.")


@command("list")
@click.option("--host", "names", multiple=True, help="Only this host. May be repeated.")
@click.option("--prefix", metavar="TEXT", help="Only hosts whose names begin with this.")
@click.option(
    "--state", type=click.Choice(["up", "silent"]), help="Only hosts whose agents report, or do not."
)
@click.option(
    "--drained/--not-drained", "is_drained", default=None, help="Only hosts that are drained, or not."
)
@list_options
@click.pass_obj
def list_(
    session: Session,
    names: tuple[str, ...],
    prefix: str | None,
    state: str | None,
    is_drained: bool | None,
    options: ListOptions,
) -> None:
    """List hosts: whether they take claims, and how many devices are free and held.

    Example: portclaim host list --state silent

    Next: portclaim tree --host HOST shows the devices of a host.
    """
    from portclaim.common.rpc.operator_messages import HostFilter

    wanted = HostFilter(
        host=names[0] if len(names) == 1 else None,
        hosts=list(names) if len(names) > 1 else None,
        prefix=prefix,
        is_silent=None if state is None else state == "silent",
        is_drained=is_drained,
    )
    show(options, session.scheduler.hosts, wanted, "hosts", table(COLUMNS, cells), "--state")


@command()
@click.argument("host", shell_complete=HOST)
@_port
@_reason
@who_option
@click.pass_obj
def drain(session: Session, host: str, address: str | None, reason: str, who: str) -> None:
    """Stop new claims on HOST, or on one of its ports. Its present claims stay until they are released.

    Example: portclaim host drain compute-7 --reason "new power supply"

    Next: portclaim claim list --host HOST shows the claims on it. Move or release them to empty the host.
    """
    stay = session.scheduler.drain(host, reason, address, who=who)
    click.echo(f"{_place(host, address)} takes no new claims; {_live(stay)} on it")


@command()
@click.argument("host", shell_complete=HOST)
@_port
@reason_option
@who_option
@click.pass_obj
def undrain(session: Session, host: str, address: str | None, reason: str | None, who: str) -> None:
    """Allow claims on HOST, or on one of its ports, again.

    Example: portclaim host undrain compute-7

    A removed host takes claims again when it is undrained and its agent reports.

    Next: portclaim host list shows whether the host is up.
    """
    session.scheduler.undrain(host, address, who=who, reason=reason)
    click.echo(f"{_place(host, address)} takes claims again")


@command()
@click.argument("host", shell_complete=HOST)
@click.option("--device", "address", metavar="ADDRESS", required=True, help="The PCI address of the device.")
@reason_option
@who_option
@click.pass_obj
def renew(session: Session, host: str, address: str, reason: str | None, who: str) -> None:
    """Allow a device of HOST that was used once to be handed out again.

    Example: portclaim host renew compute-7 --device 0000:81:00.0

    A device whose entry in device_spec says one_time_use stays unavailable after a claim has had it. Prepare
    it for its next user first: erase it, or write its firmware anew. While a claim has it, this is refused.

    Next: portclaim devices --host HOST shows the device as available.
    """
    renewed = session.scheduler.renew_device(host, address, who=who, reason=reason)
    click.echo(
        f"{address} of {host} " + ("may be handed out again" if renewed else "was not used: nothing to do")
    )


@command()
@click.argument("host", shell_complete=HOST)
@_reason
@who_option
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


COLUMNS = (
    "host",
    "last report",
    "PFs free",
    "PFs held",
    "VFs free",
    "VFs held",
    "claims",
    "key",
    "state",
    "drained ports",
)


def cells(host: HostSummary) -> Row:
    return (
        host.host,
        f"{host.agent_silent_for:.0f} s ago",
        str(host.pfs_available),
        str(host.pfs_held),
        str(host.vfs_available),
        str(host.vfs_held),
        str(host.live_claims),
        _key(host),
        _state(host),
        ", ".join(f"{address} ({reason})" for address, reason in host.drained_ports.items()),
    )


def _key(shown: HostSummary) -> str:
    """The age of the host's key; a host that is not enrolled has none."""
    return "none" if shown.key_age is None else f"{shown.key_age / 86_400:.0f} d"


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
