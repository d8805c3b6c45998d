"""``portclaim host list|drain|undrain|remove``."""

from __future__ import annotations

import getpass

import click
from rich.table import Table
from rich.text import Text

from portclaim.cli import render
from portclaim.cli.session import Session, command
from portclaim.common.rpc.operator_messages import HostFilter, Hosts, HostSummary

_port = click.option("--port", "address", metavar="ADDRESS", help="Only this port, by its PF's address.")
_reason = click.option("--reason", required=True, help="Why; shown wherever somebody asks why not.")


def add_maintenance_commands(host: click.Group) -> None:
    @command(host, "list")
    @click.option("--host", "name", help="Only this one.")
    @click.option("--limit", type=click.IntRange(1, 100_000), default=10_000, show_default=True)
    @render.output_option
    @click.pass_obj
    def list_(session: Session, name: str | None, limit: int, output: str) -> None:
        """List the hosts: whether they take claims and why not, and what they have free and held."""
        found = session.scheduler.hosts(HostFilter(host=name, limit=limit))
        render.as_json(found.hosts) if output == "json" else render.console().print(_table(found))
        if found.more:
            click.echo(f"there are more than {limit}; --limit shows more", err=True)

    @command(host)
    @click.argument("host")
    @_port
    @_reason
    @click.pass_obj
    def drain(session: Session, host: str, address: str | None, reason: str) -> None:
        """Give HOST no new claims. Those that it has stay until they are released."""
        stay = session.scheduler.drain(host, reason, address)
        click.echo(f"{_place(host, address)} takes no new claims; {_live(stay)} on it")

    @command(host)
    @click.argument("host")
    @_port
    @click.pass_obj
    def undrain(session: Session, host: str, address: str | None) -> None:
        """Let HOST have claims again, one that was removed too, once its agent reports."""
        session.scheduler.undrain(host, address)
        click.echo(f"{_place(host, address)} takes claims again")

    @command(host)
    @click.argument("host")
    @_reason
    @click.option("--who", default=getpass.getuser, show_default="your user name here", help="Who says so.")
    @click.option("--force", is_flag=True, help="End its live claims too, as release --force. DANGEROUS.")
    @click.pass_obj
    def remove(session: Session, host: str, reason: str, who: str, force: bool) -> None:
        """Take HOST, whose agent has been stopped, out for good.

        Its devices are removed; who held them stays in the history. If its agent reports again, they are
        back, but drained until `host undrain`. With live claims this is refused, unless --force ends them
        though nobody has detached anything: see first that the host is off (release --help says more).
        """
        ended = session.scheduler.remove_host(host, who, reason, force=force)
        click.echo(f"{host} is out of the fleet")
        if ended:
            click.echo(_DANGER.format(claims=_live(ended), host=host), err=True)


def _table(found: Hosts) -> Table:
    table = render.table_of(
        "host", "agent heard", "PFs free", "held", "VFs free", "held", "claims", "state", "drained ports"
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
    state = render.status("silent" if shown.is_silent else "up")
    return state.append(f", drained: {shown.drained_reason}") if shown.drained_reason else state


_DANGER = """\
DANGER: {claims} ended, and nobody has detached anything. If {host} still runs, so do the instances, with
the devices: start them nowhere else before {host} is off for certain."""


def _place(host: str, address: str | None) -> str:
    return host if address is None else f"port {address} of {host}"


def _live(claims: int) -> str:
    return f"{claims} live claim{'' if claims == 1 else 's'}"
