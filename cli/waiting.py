"""``portclaim waiting``, and how ``portclaim claim --wait`` waits."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from portclaim.cli.listing import ListOptions, Row, list_options, show, table
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from portclaim.cli.http_client import HttpScheduler
    from portclaim.common.rpc.claim_messages import Claim
    from portclaim.common.rpc.operator_messages import WaitingClaim
    from portclaim.common.rpc.scheduler import SchedulerClient

_LONGEST_REQUEST = 10.0  # seconds; then the position is shown anew

_INTERRUPTED = """
Claim {claim} still waits in its queue.
To see its status:  portclaim show {claim}
To end it:          portclaim release {claim}"""


@command()
@click.option("--host", help="Only claims for which ports of this host are reserved.")
@click.option("--instance", "instance_id", type=click.UUID, help="Only claims of this instance.")
@list_options
@click.pass_obj
def waiting(session: Session, host: str | None, instance_id: uuid.UUID | None, options: ListOptions) -> None:
    """List the claims that wait in queues, and their reserved ports.

    Example: portclaim waiting

    Claims with the same requests form a queue. Position 1 is the head of the queue. Ports are reserved for
    the head only.

    Next: portclaim release CLAIM_ID takes a claim out of its queue.
    """
    from portclaim.common.rpc.operator_messages import WaitingFilter

    wanted = WaitingFilter(host=host, instance_id=instance_id)
    show(options, session.scheduler.waiting, wanted, "claims", table(_COLUMNS, _cells))


def wait_for(session: Session, claim: Claim) -> Claim:
    """The claim when it no longer waits. Until then, its position is shown on standard error.

    Events of the claim wake the program, over HTTP the answer to a request that waits for them. Ctrl-C ends
    the program, not the claim.
    """
    if claim.status != "waiting":
        return claim
    from rich.console import Console

    from portclaim.cli.progress import progress

    try:
        with progress() as tell:
            if not Console(stderr=True).is_terminal:
                click.echo(_where(session.scheduler, claim), err=True)
            if session.http is not None:
                return _served_over_http(session.http, claim, tell)
            return _served(session, claim, tell)
    except KeyboardInterrupt:
        click.echo(_INTERRUPTED.format(claim=claim.claim_id), err=True)
        sys.exit(130)


def _served(session: Session, claim: Claim, tell: Callable[[str], None]) -> Claim:
    from portclaim.common.errors import ClaimEnded
    from portclaim.common.events.wait import wait

    scheduler = session.scheduler

    def look() -> Claim:
        tell(_where(scheduler, claim))
        return scheduler.show(claim.claim_id)

    try:
        return wait(session.conf, claim.claim_id, look, "claimed", timeout=None)
    except ClaimEnded:
        return scheduler.show(claim.claim_id)


def _served_over_http(scheduler: HttpScheduler, claim: Claim, tell: Callable[[str], None]) -> Claim:
    while claim.status == "waiting":
        tell(_where(scheduler, claim))
        claim = scheduler.wait(claim.claim_id, "claimed", _LONGEST_REQUEST)
    return claim


def _where(scheduler: SchedulerClient | HttpScheduler, claim: Claim) -> str:
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


_COLUMNS = ("claim", "instance", "requests", "position", "waited", "expires in", "reserved for it")


def _cells(claim: WaitingClaim) -> Row:
    return (
        str(claim.claim_id),
        str(claim.instance_id),
        claim.alias or "-",
        str(claim.position),
        f"{claim.waited:.0f} s",
        f"{claim.expires_in:.0f} s",
        f"{claim.reserved_host} {', '.join(claim.reserved_ports)}" if claim.reserved_host else "-",
    )
