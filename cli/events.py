"""``portclaim events``: follow what becomes of claims and devices."""

from __future__ import annotations

import uuid
from typing import get_args

import click
from rich.text import Text

from portclaim.cli import render
from portclaim.cli.session import Session, command
from portclaim.common.events.schema import Event, EventFilter, Kind
from portclaim.common.rpc.messages import ClaimStatus, DeviceStatus

_STATUSES = sorted({*get_args(ClaimStatus), *get_args(DeviceStatus)})


def add_event_commands(main: click.Group) -> None:
    @command(main)
    @click.option("--claim", "claim_ids", type=click.UUID, multiple=True, help="Only of this claim.")
    @click.option("--instance", "instance_ids", type=click.UUID, multiple=True, help="Only of this instance.")
    @click.option("--host", "hosts", multiple=True, help="Only of this host.")
    @click.option(
        "--kind",
        "kinds",
        type=click.Choice(get_args(Kind)),
        multiple=True,
        help="Only of claims, or devices.",
    )
    @click.option(
        "--status",
        "statuses",
        type=click.Choice(_STATUSES),
        multiple=True,
        help="Only what became so.",
    )
    @click.option("--name", help="Resume where the last run of this name stopped.")
    @click.option("--delete", is_flag=True, help="Forget --name, with all that waits under it.")
    @render.output_option
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
        """Follow what becomes of claims and devices, until Ctrl-C: a line for each change.

        Options may be given more than once; what fits one value of each is shown. Without --name, what
        happens while nobody follows is missed. With it, events wait in the broker from the first run on,
        however long, until a later run has printed them, or --delete drops them. A line that was printed
        may come again after an interruption, with the same id. As JSON, each line is a document.
        """
        from portclaim.common.events.stream import EventStream  # noqa: PLC0415 - the other commands need none of it

        wanted = EventFilter(
            kinds=kinds,
            statuses=statuses,
            hosts=hosts,
            claim_ids=claim_ids,
            instance_ids=instance_ids,
        )
        if delete and name is None:
            raise click.UsageError("--delete is for a --name")
        with EventStream(session.conf, wanted, name) as stream:
            if delete:
                stream.delete()
                return
            try:
                stream.start()
                click.echo("following; Ctrl-C ends it", err=True)
                for event in stream:
                    _show(event, output)
            except KeyboardInterrupt:
                return


def _show(event: Event, output: str) -> None:
    if output == "json":
        click.echo(event.model_dump_json())  # which flushes: a line that was taken is a line that is out
        return
    was = f"{event.from_status} → " if event.from_status else ""
    line = Text.assemble(
        f"{event.at:%Y-%m-%d %H:%M:%S}  {event.host or '-'}  ",
        f"claim {event.claim_id}  " if event.claim_id else "",
        f"{' '.join(device.address for device in event.devices)}  {was}",
        render.status(event.to_status),
        f"  {event.cause}",
    )
    render.console().print(line, soft_wrap=True)
