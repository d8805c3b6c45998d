"""``portclaim events``: follow changes of claims and devices."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import click

from portclaim.cli import documents
from portclaim.cli.options import output_option
from portclaim.cli.session import Session, command
from portclaim.common.pci.status import DeviceStatus

if TYPE_CHECKING:
    from portclaim.common.events.schema import Event, Kind

# A test compares these with the types of the messages, which take most of a second to import.
KINDS = ("claim", "device")
CLAIM_STATUSES = (
    "waiting",
    "claimed",
    "prepared",
    "allocated",
    "releasing",
    "released",
    "failed",
    "expired",
)


@command()
@click.option("--claim", "claim_ids", type=click.UUID, multiple=True, help="Only this claim.")
@click.option("--instance", "instance_ids", type=click.UUID, multiple=True, help="Only this instance.")
@click.option("--host", "hosts", multiple=True, help="Only this host.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    help="Only claims, or only devices.",
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice(sorted({*CLAIM_STATUSES, *(status.value for status in DeviceStatus)})),
    multiple=True,
    help="Only changes to this status.",
)
@click.option("--name", help="Continue where the last run with this name stopped.")
@click.option("--delete", is_flag=True, help="Delete --name and the events that wait for it.")
@output_option
@click.pass_obj
def events(
    session: Session,
    claim_ids: tuple[uuid.UUID, ...],
    instance_ids: tuple[uuid.UUID, ...],
    hosts: tuple[str, ...],
    kinds: tuple[Kind, ...],
    statuses: tuple[str, ...],
    name: str | None,
    delete: bool,
    output: str,
) -> None:
    """Follow changes of claims and devices as they happen, until Ctrl-C.

    Example: portclaim events --kind claim --status failed

    Options may be repeated. An event is shown if it matches one value of each option. Without --name, events
    are missed while the command does not run. With --name they wait in the broker until a later run prints
    them, or until --delete drops them. With --url there is no --name, and an interruption misses nothing
    while the command runs. After an interruption a line may be printed again, with the same id.
    With --output json each line is a JSON document.

    Next: portclaim show CLAIM_ID shows a claim that an event names.
    """
    from portclaim.cli.event_streams import events_over_http
    from portclaim.common.events import schema
    from portclaim.common.events.schema import EventFilter
    from portclaim.common.events.stream import EventStream

    wanted = EventFilter(
        kinds=kinds,
        statuses=statuses,
        hosts=hosts,
        claim_ids=claim_ids,
        instance_ids=instance_ids,
    )
    if delete and name is None:
        raise click.UsageError("--delete needs --name")
    if session.http is not None:
        if name is not None:
            raise click.UsageError("over HTTP there is no --name")
        click.echo("following events; press Ctrl-C to stop", err=True)
        try:
            for text in events_over_http(session.http, wanted):
                _show(schema.read(text), output)
        except KeyboardInterrupt:
            pass
        return
    with EventStream(session.conf, wanted, name) as stream:
        if delete:
            stream.delete()
            return
        try:
            stream.start()
            click.echo("following events; press Ctrl-C to stop", err=True)
            for event in stream:
                _show(event, output)
        except KeyboardInterrupt:
            return


def _show(event: Event, output: str) -> None:
    if output != "table":
        documents.line(output, event)  # flushes: the next event is read after this line is written
        return
    from rich.text import Text

    from portclaim.cli import render

    was = f"{event.from_status} → " if event.from_status else ""
    line = Text.assemble(
        f"{event.at:%Y-%m-%d %H:%M:%S}  {event.host or '-'}  ",
        f"claim {event.claim_id}  " if event.claim_id else "",
        f"{' '.join(device.address for device in event.devices)}  {was}",
        render.status(event.to_status),
        f"  {event.cause}",
    )
    render.console().print(line, soft_wrap=True)
