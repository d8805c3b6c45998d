"""``portclaim claim list``."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import click

from portclaim.cli.completing import HOST
from portclaim.cli.events import CLAIM_STATUSES
from portclaim.cli.listing import ListOptions, Row, list_options, show, table
from portclaim.cli.options import age_option
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from portclaim.common.rpc.operator_messages import ListedClaim

_COLUMNS = ("claim", "instance", "host", "status", "age", "devices", "awaited step", "reason")


@command("claim list")
@click.option(
    "--status",
    "statuses",
    type=click.Choice(CLAIM_STATUSES),
    multiple=True,
    help="Only claims with this status. May be repeated. Default: all that have not ended.",
)
@click.option("--host", shell_complete=HOST, help="Only claims that this host has served.")
@click.option("--instance", "instance_id", type=click.UUID, help="Only claims of this instance.")
@age_option("--older-than", "Only claims that were made at least so long ago.")
@age_option("--newer-than", "Only claims that were made at most so long ago.")
@list_options
@click.pass_obj
def claim_list(
    session: Session,
    statuses: tuple[str, ...],
    host: str | None,
    instance_id: uuid.UUID | None,
    older_than: int | None,
    newer_than: int | None,
    options: ListOptions,
) -> None:
    """List claims, the oldest first.

    Example: portclaim claim list --status claimed --older-than 10m

    Claims that have ended are listed only with --status, until they are pruned. The awaited step is the one
    that the host's agent has not answered.

    Next: portclaim describe claim CLAIM_ID shows a claim with its history, and what to do next.
    """
    from portclaim.common.rpc.operator_messages import ClaimFilter

    wanted = ClaimFilter.model_validate(
        {
            "statuses": list(statuses) or None,
            "host": host,
            "instance_id": instance_id,
            "older_than": older_than,
            "newer_than": newer_than,
        }
    )
    show(options, session.scheduler.claims, wanted, "claims", table(_COLUMNS, _cells), "--host")


def _cells(claim: ListedClaim) -> Row:
    from portclaim.cli import render

    return (
        str(claim.claim_id),
        str(claim.instance_id),
        render.or_dash(claim.host),
        render.status(claim.status),
        render.time_span(claim.age),
        " ".join(claim.devices),
        render.or_dash(claim.awaited_step),
        claim.reason or "",
    )
