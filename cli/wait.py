"""``portclaim wait``: wait for a claim until it has a status."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from portclaim.cli.completing import CLAIM
from portclaim.cli.options import output_option
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from portclaim.cli.http_client import HttpScheduler
    from portclaim.common.events.wait import Goal
    from portclaim.common.rpc.claim_messages import Claim

# A test compares these with the type, whose module takes most of a second to import.
_LONGEST_REQUEST = 30.0  # seconds
GOALS = ("claimed", "prepared", "allocated", "released", "ended")


@command()
@click.argument("claim_id", type=click.UUID, shell_complete=CLAIM)
@click.option(
    "--for",
    "until",
    type=click.Choice(GOALS),
    default="allocated",
    show_default=True,
    help="What to wait for. `ended` is any end: released, failed or expired.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Give up after this time. 0: only look. Default: no limit.",
)
@output_option
@click.pass_obj
def wait(session: Session, claim_id: uuid.UUID, until: Goal, timeout: float | None, output: str) -> None:
    """Wait until a claim is prepared or allocated, or has ended. Shows the claim.

    Example: portclaim wait 6f1b4f6e-52b5-4e0f-9d0a-1c3f4f2b7a10 --for prepared --timeout 60

    The command answers at once if the claim is that far already: an allocated claim is prepared too. It ends
    with status 1 and the reason if the claim has ended otherwise, if you wait for `claimed`, `prepared` or
    `allocated` and the claim is being released, or when the time is over. Events of the claim wake the
    command. In case an event is lost, it also looks the claim up, at least every 10 seconds.

    Next: when the claim is prepared, start the instance on its host. When it is allocated, the instance has
    its devices. When it has ended, they are free.
    """
    from portclaim.cli import documents, render
    from portclaim.cli.progress import progress
    from portclaim.common.events.wait import wait as wait_for

    scheduler = session.scheduler
    try:
        with progress() as tell:

            def look() -> Claim:
                claim = scheduler.show(claim_id)
                tell(f"claim {claim_id} is {claim.status}")
                return claim

            if session.http is not None:
                found = _over_http(session.http, claim_id, until, timeout, tell)
            else:
                found = wait_for(session.conf, claim_id, look, until, timeout)
    except KeyboardInterrupt:
        sys.exit(130)
    documents.show(output, found, render.claim)


def _over_http(
    scheduler: HttpScheduler,
    claim_id: uuid.UUID,
    until: Goal,
    timeout: float | None,
    tell: Callable[[str], None],
) -> Claim:
    """Wait with requests that are answered when the claim is that far. Raises what the wait over RPC does."""
    from portclaim.common.events.wait import is_over, reached

    deadline = float("inf") if timeout is None else time.monotonic() + timeout
    claim = scheduler.show(claim_id)
    while True:
        tell(f"claim {claim_id} is {claim.status}")
        left = deadline - time.monotonic()
        if is_over(claim.status, until) or left <= 0:
            return reached(claim, until, timeout)
        claim = scheduler.wait(claim_id, until, min(left, _LONGEST_REQUEST))
