"""``portclaim devices|tree|ping``: look at the fleet."""

from __future__ import annotations

import uuid
from importlib import import_module

import click

from portclaim.cli.options import limit_option, output_option, say_more
from portclaim.cli.session import Session, command
from portclaim.common.pci.status import DeviceStatus

CLIENTS = {
    "compute_agent": "ComputeAgentClient",
    "conductor": "ConductorClient",
    "scheduler": "SchedulerClient",
}
"""The services, and the client of each in ``portclaim.common.rpc.<service>``."""

DEVICE_TYPES = ("type-PCI", "type-PF", "type-VF")

_host = click.option("--host", help="Only this host.")


@command()
@_host
@click.option("--type", "dev_type", type=click.Choice(DEVICE_TYPES))
@click.option("--status", type=click.Choice([status.value for status in DeviceStatus]))
@click.option("--claim", "claim_id", type=click.UUID, help="Only devices that this claim holds.")
@limit_option
@output_option
@click.pass_obj
def devices(
    session: Session,
    host: str | None,
    dev_type: str | None,
    status: str | None,
    claim_id: uuid.UUID | None,
    limit: int,
    output: str,
) -> None:
    """List devices with their effective status and its reason.

    Example: portclaim devices --status allocated

    Next: portclaim tree --host HOST shows a device beside its PF or its VFs.
    """
    from portclaim.cli import render
    from portclaim.common.rpc.claim_messages import DeviceFilter

    wanted = DeviceFilter.model_validate(
        {"host": host, "dev_type": dev_type, "status": status, "claim_id": claim_id, "limit": limit}
    )
    found = session.scheduler.devices(wanted)
    if output == "json":
        render.as_json(found.devices)
    else:
        render.devices(found.devices)
    say_more(found.more, limit, "--host")


@command()
@_host
@limit_option
@output_option
@click.pass_obj
def tree(session: Session, host: str | None, limit: int, output: str) -> None:
    """Show the ports of each host as a tree of PFs and VFs.

    Example: portclaim tree --host compute-7

    Next: portclaim explain says whether a claim would be served.
    """
    from portclaim.cli import render
    from portclaim.common.rpc.claim_messages import DeviceFilter

    found = session.scheduler.devices(DeviceFilter(host=host, limit=limit))
    if output == "json":
        render.as_json(found.devices)
    else:
        render.tree(found.devices)
    say_more(found.more, limit, "--host")


@command()
@click.argument("service", type=click.Choice(sorted(CLIENTS)))
@click.option("--host", help="The service on this host (its [DEFAULT] host). Default: any.")
@click.pass_obj
def ping(session: Session, service: str, host: str | None) -> None:
    """Ask a service over the bus whether it answers.

    Example: portclaim ping scheduler

    Next: if the service does not answer, read its log, and check that its transport_url is the same as here.
    """
    if service == "compute_agent" and host is None:
        raise click.UsageError("compute_agent needs --host: there is one on each compute node")
    client = getattr(import_module(f"portclaim.common.rpc.{service}"), CLIENTS[service])
    session.client(client, host).ping()
    click.echo(f"{service} answers")
