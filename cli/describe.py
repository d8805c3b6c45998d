"""``portclaim describe claim|host|port``: everything about one thing, and what to do next."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import click

from portclaim.cli import documents
from portclaim.cli.completing import ADDRESS, CLAIM, HOST
from portclaim.cli.options import output_option
from portclaim.cli.session import Session, command
from portclaim.cli.watching import watch_option
from portclaim.common.errors import ClaimNotFound, InvalidRequest, UnknownHost

if TYPE_CHECKING:
    from portclaim.common.rpc.history_messages import History

_history_option = click.option(
    "--history",
    "limit",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="Show so many of its last holders, and so many of its last changes.",
)


@click.group()
def describe() -> None:
    """Show everything about one claim, host or port, its history, and what to do next."""


@command("claim", group=describe)
@click.argument("claim_id", type=click.UUID, shell_complete=CLAIM)
@_history_option
@watch_option
@output_option
@click.pass_obj
def claim_(session: Session, claim_id: uuid.UUID, limit: int, output: str) -> None:
    """Show a claim: its devices, every change of its status, and the steps its agent has not answered.

    Example: portclaim describe claim 6f1b4f6e-52b5-4e0f-9d0a-1c3f4f2b7a10

    Of a claim that was refused it shows why, with what each filter left at that time.

    Next: the last lines say what to do.
    """
    from portclaim.cli import advice, render
    from portclaim.common.rpc.history_messages import HistoryFilter
    from portclaim.common.rpc.operator_messages import WaitingFilter

    scheduler = session.scheduler
    try:
        shown = scheduler.show(claim_id)
    except ClaimNotFound:
        if _is_refused(session, claim_id, output):
            return
        raise
    history = scheduler.history(HistoryFilter(claim_id=claim_id, limit=limit))
    queued = None
    if shown.status == "waiting":
        queued = next(iter(scheduler.waiting(WaitingFilter(claim_id=claim_id)).claims), None)
    _print(
        output,
        {"claim": shown, "history": history, "next": advice.for_claim(shown, history, queued)},
        lambda: render.claim(shown),
    )


def _is_refused(session: Session, claim_id: uuid.UUID, output: str) -> bool:
    """Whether the claim was refused lately; if so, this shows it."""
    from portclaim.cli import advice, refusals
    from portclaim.common.rpc.refusal_messages import RefusalFilter

    wanted = RefusalFilter(claim_id=claim_id, explained=True, limit=1)
    for refusal in session.scheduler.refusals(wanted).refusals:
        shown = {"refusal": refusal, "next": advice.for_refusal(refusal)}
        _print(output, shown, lambda refusal=refusal: refusals.describe(refusal))
        return True
    return False


@command("host", group=describe)
@click.argument("host", shell_complete=HOST)
@_history_option
@watch_option
@output_option
@click.pass_obj
def host_(session: Session, host: str, limit: int, output: str) -> None:
    """Show a host: whether it takes claims, what it has free, and who has held its devices.

    Example: portclaim describe host compute-7

    Next: the last lines say what to do.
    """
    from portclaim.cli import advice, maintenance, render
    from portclaim.common.rpc.history_messages import HistoryFilter
    from portclaim.common.rpc.operator_messages import HostFilter

    found = session.scheduler.hosts(HostFilter(host=host)).hosts
    if not found:
        raise UnknownHost(f"no agent has ever reported for host {host}: see portclaim host list", host=host)
    [shown] = found
    history = session.scheduler.history(HistoryFilter(host=host, limit=limit))
    _print(
        output,
        {"host": shown, "history": history, "next": advice.for_host(shown, history)},
        lambda: render.facts(zip(maintenance.COLUMNS, maintenance.cells(shown), strict=True)),
    )


@command("port", group=describe)
@click.argument("host", shell_complete=HOST)
@click.argument("address", shell_complete=ADDRESS)
@_history_option
@watch_option
@output_option
@click.pass_obj
def port_(session: Session, host: str, address: str, limit: int, output: str) -> None:
    """Show the port of HOST at the PCI ADDRESS with its VFs, or another device, and who has held them.

    Example: portclaim describe port compute-7 0000:81:00.0

    The address of a VF shows the port that the VF is of.

    Next: the last lines say what to do.
    """
    from portclaim.cli import advice, render
    from portclaim.common.rpc.claim_messages import DeviceFilter
    from portclaim.common.rpc.history_messages import HistoryFilter
    from portclaim.common.rpc.pages import pages

    answers = pages(session.scheduler.devices, DeviceFilter(host=host, limit=1000))
    devices = [device for answer in answers for device in answer.devices]
    wanted = next((device.port for device in devices if address in {device.address, device.port}), None)
    if wanted is None:
        raise InvalidRequest(f"host {host} has no device {address} now: see portclaim tree --host {host}")
    shown = [device for device in devices if device.port == wanted]
    history = session.scheduler.history(HistoryFilter(host=host, address=wanted, limit=limit))
    _print(
        output,
        {"devices": shown, "history": history, "next": advice.for_port(shown, history)},
        lambda: render.tree(shown),
    )


def _print(output: str, shown: dict[str, Any], head: Any) -> None:
    if output != documents.TABLE:
        documents.document(output, shown)
        return
    head()
    if "history" in shown:
        _history(shown["history"])
    click.echo("\nnext")
    for sentence in shown["next"]:
        click.echo(f"  {sentence}")


def _history(history: History) -> None:
    from portclaim.cli import render

    if history.steps:
        click.echo("\nsteps that the agent has not answered")
        render.rows(
            ("claim", "step", "sent", "waited", "state", "last failure"),
            [
                (
                    str(step.claim_id),
                    f"{step.step} {step.action}",
                    f"{step.times_sent} times",
                    render.time_span(step.awaited_for),
                    "parked" if step.parked else "retried",
                    step.last_failure or "",
                )
                for step in history.steps
            ],
        )
    if history.holdings:
        click.echo("\nwho held what, the newest first")
        render.rows(
            ("address", "from", "until", "claim", "instance", "status"),
            [
                (
                    held.address,
                    render.moment(held.held_from),
                    render.moment(held.held_until) if held.held_until else "now",
                    str(held.claim_id),
                    str(held.instance_id),
                    render.status(held.claim_status),
                )
                for held in history.holdings
            ],
        )
    if history.changes:
        click.echo("\nchanges, the newest first")
        of_devices = any(change.address for change in history.changes)
        render.rows(
            ("at", *(["address"] if of_devices else []), "from", "to", "cause"),
            [
                (
                    render.moment(change.at),
                    *([change.address or "-"] if of_devices else []),
                    render.or_dash(change.from_status),
                    render.status(change.to_status),
                    change.cause,
                )
                for change in history.changes
            ],
        )
