"""``portclaim outbox list|retry``: steps that agents have not answered."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import click

from portclaim.cli.completing import HOST
from portclaim.cli.listing import ListOptions, Row, list_options, show, table
from portclaim.cli.options import age_option, reason_option, who_option
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from portclaim.common.rpc.operator_messages import AwaitedStep

_host = click.option("--host", shell_complete=HOST, help="Only this host.")


@click.group()
def outbox() -> None:
    """List and retry steps that agents have not answered.

    A step is sent again until its agent answers, at growing intervals. After [conductor] max_sends sends it
    is parked: its host needs an operator. The claim keeps its devices. When an agent starts, it also does its
    parked steps.
    """


@command("list", group=outbox)
@_host
@click.option("--parked", is_flag=True, help="Only steps that are no longer sent.")
@age_option("--older-than", "Only steps that were written at least so long ago.")
@list_options
@click.pass_obj
def list_(
    session: Session, host: str | None, parked: bool, older_than: int | None, options: ListOptions
) -> None:
    """List the steps, those that have waited longest first.

    Example: portclaim outbox list --parked

    Next: make the host's agent run, and read the last failure. Then portclaim outbox retry.
    """
    from portclaim.common.rpc.operator_messages import StepFilter

    wanted = StepFilter(host=host, parked=parked, older_than=older_than)
    show(options, session.scheduler.awaited_steps, wanted, "steps", table(_COLUMNS, _cells), "--host")


@command(group=outbox)
@click.argument("claim_ids", nargs=-1, type=click.UUID, metavar="[CLAIM_ID]...")
@click.option("--parked", is_flag=True, help="All parked steps, instead of those of named claims.")
@_host
@reason_option
@who_option
@click.pass_obj
def retry(
    session: Session,
    claim_ids: tuple[uuid.UUID, ...],
    parked: bool,
    host: str | None,
    reason: str | None,
    who: str,
) -> None:
    """Send the steps of these claims now, as if they had never been sent.

    Example: portclaim outbox retry --parked --host compute-7

    A claim's last failure may say what to mend first: portclaim outbox list shows it.

    Next: portclaim outbox list, until the steps are gone.
    """
    if bool(claim_ids) == parked:
        raise click.UsageError("name claims or use --parked")
    sent = session.scheduler.retry(claim_ids or None, host, who=who, reason=reason)
    click.echo(f"{sent} step{'' if sent == 1 else 's'} sent again")


_COLUMNS = ("host", "claim", "step", "sent", "waited", "agent silent for", "state", "last failure")


def _cells(step: AwaitedStep) -> Row:
    return (
        step.host,
        str(step.claim_id),
        f"{step.step} {step.action}",
        f"{step.times_sent} times",
        f"{step.awaited_for:.0f} s",
        f"{step.agent_silent_for:.0f} s",
        "parked" if step.parked else "retried",
        step.last_failure or "",
    )
