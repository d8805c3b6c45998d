"""``portclaim waiting``, and how ``portclaim claim --wait`` waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from portclaim.cli import render
from portclaim.cli.session import Session, command
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.operator_messages import WaitingClaim, WaitingFilter
from portclaim.common.rpc.scheduler import SchedulerClient

_PAUSE = 1.0  # seconds between two calls

_INTERRUPTED = """
Claim {claim} still waits in its queue.
To see its status:  portclaim show {claim}
To end it:          portclaim release {claim}"""


@command()
@click.option("--limit", type=click.IntRange(1, 100_000), default=10_000, show_default=True)
@render.output_option
@click.pass_obj
def waiting(session: Session, limit: int, output: str) -> None:
    """List the claims that wait in queues, and the ports reserved for them.

    Example: portclaim waiting

    Claims with the same requests form a queue. Position 1 is the head: only the head gets ports reserved.
    """
    found = session.scheduler.waiting(WaitingFilter(limit=limit))
    render.as_json(found.claims) if output == "json" else render.console().print(_table(found.claims))
    if found.more:
        click.echo(f"there are more than {limit}: use --limit to see more", err=True)


def wait_for(scheduler: SchedulerClient, claim: Claim) -> Claim:
    """The claim when it no longer waits. Until then, its position is shown on standard error.

    Ctrl-C ends the program, not the claim.
    """
    if claim.status != "waiting":
        return claim
    out = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
            shown = progress.add_task("", total=None)
            if not out.is_terminal:
                click.echo(_where(scheduler, claim), err=True)
            while claim.status == "waiting":
                progress.update(shown, description=_where(scheduler, claim))
                time.sleep(_PAUSE)
                claim = scheduler.show(claim.claim_id)
    except KeyboardInterrupt:
        click.echo(_INTERRUPTED.format(claim=claim.claim_id), err=True)
        sys.exit(130)
    return claim


def _where(scheduler: SchedulerClient, claim: Claim) -> str:
    found = scheduler.waiting(WaitingFilter(claim_id=claim.claim_id)).claims
    return f"claim {claim.claim_id} waits" + "".join(
        f" at position {each.position}, for at most {max(each.expires_in, 0):.0f} s more{_ports(each)}"
        for each in found
    )


def _ports(claim: WaitingClaim) -> str:
    return (
        f"; reserved for it: {claim.reserved_host} {', '.join(claim.reserved_ports)}"
        if claim.reserved_host
        else ""
    )


def _table(claims: Sequence[WaitingClaim]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("claim", "instance", "requests", "position", "waited", "expires in", "reserved for it"):
        table.add_column(column, no_wrap=True)
    for claim in claims:
        table.add_row(
            str(claim.claim_id),
            str(claim.instance_id),
            claim.alias or "-",
            str(claim.position),
            f"{claim.waited:.0f} s",
            f"{claim.expires_in:.0f} s",
            f"{claim.reserved_host} {', '.join(claim.reserved_ports)}" if claim.reserved_host else "-",
        )
    return table
