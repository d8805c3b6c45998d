"""``portclaim claim refusals``, and how a refused claim is shown."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import click

from portclaim.cli.listing import ListOptions, Row, list_options, show, table
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from portclaim.common.rpc.refusal_messages import Refusal

_COLUMNS = ("claim", "instance", "at", "times", "requests", "reason", "message")
_MOST_NAMES = 5


@command("claim refusals")
@click.option("--instance", "instance_id", type=click.UUID, help="Only claims for this instance.")
@click.option("--project", help="Only claims of this project.")
@click.option("--reason", help="Only claims that were refused for this reason, in the word of the list.")
@list_options
@click.pass_obj
def claim_refusals(
    session: Session,
    instance_id: uuid.UUID | None,
    project: str | None,
    reason: str | None,
    options: ListOptions,
) -> None:
    """List the claims that were refused last, the newest first.

    Example: portclaim claim refusals --reason together

    The newest 1,000 are kept for a day. A refusal is listed a few seconds late. When very many claims are
    refused, not each of them is kept; portclaim top counts them all.

    Next: portclaim describe claim CLAIM_ID shows what each filter left for a claim.
    """
    from portclaim.common.rpc.refusal_messages import RefusalFilter

    wanted = RefusalFilter(instance_id=instance_id, project=project, reason=reason)
    show(options, session.scheduler.refusals, wanted, "refusals", table(_COLUMNS, _cells), "--reason")


def _cells(refusal: Refusal) -> Row:
    from portclaim.cli import render

    return (
        str(refusal.claim_id),
        str(refusal.instance_id),
        render.moment(refusal.at),
        str(refusal.times),
        refusal.alias or "-",
        refusal.reason,
        refusal.message,
    )


def describe(refusal: Refusal) -> None:
    """Print a refused claim with what each filter left."""
    from portclaim.cli import render

    asked = refusal.request
    lists = {name: asked.get(name) or [] for name in ("hosts", "avoid_hosts", "near", "apart_from")}
    named = [
        (name.replace("_", " "), _names(names, refusal.is_cut)) for name, names in lists.items() if names
    ]
    render.facts(
        [
            ("claim", str(refusal.claim_id)),
            ("instance", str(refusal.instance_id)),
            ("project", refusal.project or "-"),
            ("status", f"refused at {render.moment(refusal.at)}, {_times(refusal.times)}"),
            ("asked for", refusal.alias or "-"),
            *named,
            ("reason", f"{refusal.reason}: {refusal.message}"),
        ]
    )
    if refusal.explanation is not None:
        click.echo("\nas it was then")
        render.explanation(refusal.explanation, "was refused")


def _names(names: list[str], is_cut: bool) -> str:
    more = len(names) - _MOST_NAMES
    words = " ".join(names[:_MOST_NAMES])
    if more <= 0:
        return words
    return f"{words} and {'at least ' if is_cut else ''}{more} more"


def _times(times: int) -> str:
    return "once" if times == 1 else f"the last of {times} times"
