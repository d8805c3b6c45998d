"""``portclaim waiting``, and how ``portclaim claim --wait`` waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from portclaim.cli.options import limit_option, output_option, say_more
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from rich.table import Table

    from portclaim.common.rpc.claim_messages import Claim
    from portclaim.common.rpc.operator_messages import WaitingClaim
    from portclaim.common.rpc.scheduler import SchedulerClient

_PAUSE = 1.0  # seconds between two calls

_INTERRUPTED = """
Claim {claim} still waits in its queue.
To see its status:  portclaim show {claim}
To end it:          portclaim release {claim}"""


@command()
@limit_option
@output_option
@click.pass_obj
def waiting(session: Session, limit: int, output: str) -> None:
    """List the claims that wait in queues, and their reserved ports.

    Example: portclaim waiting

    Claims with the same requests form a queue. Position 1 is the head of the queue. Ports are reserved for
    the head only.

    Next: portclaim release CLAIM_ID takes a claim out of its queue.
    """
    from portclaim.cli import render
    from portclaim.common.rpc.operator_messages import WaitingFilter

    found = session.scheduler.waiting(WaitingFilter(limit=limit))
    render.as_json(found.claims) if output == "json" else render.console().print(_table(found.claims))
    say_more(found.more, limit)


def wait_for(scheduler: SchedulerClient, claim: Claim) -> Claim:
    """The claim when it no longer waits. Until then, its position is shown on standard error.

    Ctrl-C ends the program, not the claim.
    """
    if claim.status != "waiting":
        return claim
    from rich.console import Console

    from portclaim.cli.progress import progress

    try:
        with progress() as tell:
            if not Console(stderr=True).is_terminal:
                click.echo(_where(scheduler, claim), err=True)
            while claim.status == "waiting":
                tell(_where(scheduler, claim))
                time.sleep(_PAUSE)
                claim = scheduler.show(claim.claim_id)
    except KeyboardInterrupt:
        click.echo(_INTERRUPTED.format(claim=claim.claim_id), err=True)
        sys.exit(130)
    return claim


def _where(scheduler: SchedulerClient, claim: Claim) -> str:
    from portclaim.common.rpc.operator_messages import WaitingFilter

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
    from portclaim.cli import render

    table = render.table_of(
        "claim", "instance", "requests", "position", "waited", "expires in", "reserved for it"
    )
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
