"""``portclaim devices|tree|ping``: look at the fleet."""

from __future__ import annotations

import uuid

import click

from portclaim.cli import render
from portclaim.cli.session import Session, command
from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.status import DeviceStatus
from portclaim.common.rpc.claim_messages import DeviceFilter
from portclaim.common.rpc.client import Client
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.scheduler import SchedulerClient

_CLIENTS: dict[str, type[Client]] = {
    client.topic: client for client in (ConductorClient, SchedulerClient, ComputeAgentClient)
}

_host = click.option("--host", help="Only this host.")
_limit = click.option("--limit", type=click.IntRange(1, 100_000), default=10_000, show_default=True)


@command()
@_host
@click.option("--type", "dev_type", type=click.Choice([kind.value for kind in DeviceType]))
@click.option("--status", type=click.Choice([status.value for status in DeviceStatus]))
@click.option("--claim", "claim_id", type=click.UUID, help="Only devices that this claim holds.")
@_limit
@render.output_option
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
    """
    wanted = DeviceFilter.model_validate(
        {"host": host, "dev_type": dev_type, "status": status, "claim_id": claim_id, "limit": limit}
    )
    found = session.scheduler.devices(wanted)
    if output == "json":
        render.as_json(found.devices)
    else:
        render.devices(found.devices)
    _say_more(found.more, limit)


@command()
@_host
@_limit
@render.output_option
@click.pass_obj
def tree(session: Session, host: str | None, limit: int, output: str) -> None:
    """Show the ports of each host as a tree of PFs and VFs.

    Example: portclaim tree --host compute-7
    """
    found = session.scheduler.devices(DeviceFilter(host=host, limit=limit))
    if output == "json":
        render.as_json(found.devices)
    else:
        render.tree(found.devices)
    _say_more(found.more, limit)


@command()
@click.argument("service", type=click.Choice(sorted(_CLIENTS)))
@click.option("--host", help="The service on this host (its [DEFAULT] host). Default: any.")
@click.pass_obj
def ping(session: Session, service: str, host: str | None) -> None:
    """Ask a service over the bus whether it answers.

    Example: portclaim ping scheduler
    """
    if service == ComputeAgentClient.topic and host is None:
        raise click.UsageError("compute_agent needs --host: there is one on each compute node")
    session.client(_CLIENTS[service], host).ping()
    click.echo(f"{service} answers")


def _say_more(more: bool, limit: int) -> None:
    if more:
        click.echo(f"there are more than {limit}: use --limit to see more, or --host to see fewer", err=True)
