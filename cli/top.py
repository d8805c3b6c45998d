"""``portclaim top``: how the fleet is now, live."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import click

from portclaim.cli import documents
from portclaim.cli.options import output_option
from portclaim.cli.session import Session, command
from portclaim.common.errors import ServiceUnavailable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from portclaim.common.rpc.summary_messages import FleetSummary

_MANY = 10_000  # from here on the service does not count further


@command()
@click.option(
    "--interval",
    type=click.FloatRange(min=1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Look again after so many seconds.",
)
@click.option(
    "--once", is_flag=True, help="Show it once. So it is in a pipe, and with --output json or yaml."
)
@output_option
@click.pass_obj
def top(session: Session, interval: float, once: bool, output: str) -> None:
    """Show how the fleet is, live: what is free and held, what stands still, why claims are refused.

    Example: portclaim top

    It reads the sums of each host and not the devices, so it may be left on beside a large fleet. The numbers
    of devices may be a second old. Ctrl-C ends it.

    Next: portclaim describe host HOST for a silent host, portclaim describe claim CLAIM_ID for a slow step.
    """
    scheduler = session.scheduler
    shown = scheduler.summary()
    if once or output != documents.TABLE or not sys.stdout.isatty():
        documents.show(output, shown, _print)
        return
    from rich.live import Live

    from portclaim.cli import render

    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(_page(shown), console=render.console(), auto_refresh=False, screen=True) as live,
    ):
        while True:
            live.update(_page(shown), refresh=True)
            time.sleep(interval)
            with contextlib.suppress(ServiceUnavailable):  # the last page stays, and says when it was read
                shown = scheduler.summary()


def _print(shown: FleetSummary) -> None:
    from portclaim.cli import render

    render.console().print(_page(shown))


def _page(shown: FleetSummary) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from portclaim.cli import render
    from portclaim.cli.table import Table

    hosts = f"hosts   {shown.hosts}, {shown.hosts_drained} drained, {shown.hosts_silent} silent"
    parts: list[RenderableType] = [Text(f"{time.strftime('%H:%M:%S')}  {hosts}")]
    rates = f"{render.time_span(shown.seconds)}: " + ", ".join(
        _rate(shown, status) for status in ("claimed", "allocated", "released", "failed", "expired")
    )
    parts.append(Text(f"claims  in the last {rates}"))
    now = ", ".join(f"{_count(count)} {status}" for status, count in shown.in_progress.items())
    parts.append(Text(f"now     {now}; steps {_count(shown.steps)}, parked {_count(shown.steps_parked)}"))
    pools = Table("type", "ids", "devices", "free")
    for pool in shown.pools:
        pools.add_row(pool.dev_type, f"{pool.vendor_id}:{pool.product_id}", str(pool.devices), str(pool.free))
    parts += [Text(""), pools]
    if shown.refused:
        refused = Table("refused", "asked for", "in the last hour")
        for kind in shown.refused:
            refused.add_row(kind.reason, Text(kind.alias or "-"), str(kind.refused))
        parts += [Text(""), refused]
    if shown.slowest_steps:
        steps = Table("slowest steps", "claim", "step", "waited", "state", "last failure")
        for step in shown.slowest_steps:
            steps.add_row(
                Text(step.host),
                str(step.claim_id),
                f"{step.step} {step.action}",
                render.time_span(step.awaited_for),
                "parked" if step.parked else "retried",
                Text(step.last_failure or ""),
            )
        parts += [Text(""), steps]
    if shown.silent_hosts:
        silent = Table("silent hosts", "last report")
        for host in shown.silent_hosts:
            silent.add_row(Text(host.host), f"{render.time_span(host.silent_for)} ago")
        parts += [Text(""), silent]
    return Group(*parts)


def _rate(shown: FleetSummary, status: str) -> str:
    changes = shown.changes.get(status, 0)
    return f"{changes} {status} ({changes / max(shown.seconds, 0.001):.1f}/s)"


def _count(number: int) -> str:
    return f"{_MANY} or more" if number >= _MANY else str(number)
