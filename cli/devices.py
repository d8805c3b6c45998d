"""``portclaim devices|tree|ping``: look at the fleet."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING

import click

from portclaim.cli.completing import HOST
from portclaim.cli.listing import ListOptions, Row, list_options, show, table
from portclaim.cli.session import Session, command
from portclaim.common.pci.status import DeviceStatus

if TYPE_CHECKING:
    from portclaim.common.rpc.claim_messages import Device

CLIENTS = {
    "compute_agent": "ComputeAgentClient",
    "conductor": "ConductorClient",
    "scheduler": "SchedulerClient",
}
"""The services, and the client of each in ``portclaim.common.rpc.<service>``."""

DEVICE_TYPES = ("type-PCI", "type-PF", "type-VF")

_host = click.option("--host", shell_complete=HOST, help="Only this host.")


@command()
@_host
@click.option("--type", "dev_type", type=click.Choice(DEVICE_TYPES), help="Only devices of this type.")
@click.option(
    "--status",
    type=click.Choice([status.value for status in DeviceStatus]),
    help="Only devices with this effective status. Default: all but removed ones.",
)
@click.option("--claim", "claim_id", type=click.UUID, help="Only devices that this claim holds.")
@click.option("--vendor-id", metavar="HEX", help="Only devices with this vendor id.")
@click.option("--product-id", metavar="HEX", help="Only devices with this product id.")
@list_options
@click.pass_obj
def devices(
    session: Session,
    host: str | None,
    dev_type: str | None,
    status: str | None,
    claim_id: uuid.UUID | None,
    vendor_id: str | None,
    product_id: str | None,
    options: ListOptions,
) -> None:
    """List devices with their effective status and its reason.

    Example: portclaim devices --status allocated

    Next: portclaim tree --host HOST shows a device beside its PF or its VFs.
    """
    from portclaim.common.rpc.claim_messages import DeviceFilter

    wanted = DeviceFilter.model_validate(
        {
            "host": host,
            "dev_type": dev_type,
            "status": status,
            "claim_id": claim_id,
            "vendor_id": vendor_id,
            "product_id": product_id,
        }
    )
    show(options, session.scheduler.devices, wanted, "devices", table(_COLUMNS, _cells), "--host")


@command()
@_host
@list_options
@click.pass_obj
def tree(session: Session, host: str | None, options: ListOptions) -> None:
    """Show the ports of each host as a tree of PFs and VFs.

    Example: portclaim tree --host compute-7

    Next: portclaim describe host HOST shows who held what, and what to do next.
    """
    from portclaim.common.rpc.claim_messages import DeviceFilter

    show(options, session.scheduler.devices, DeviceFilter(host=host), "devices", _print_tree, "--host")


_COLUMNS = ("host", "address", "type", "ids", "numa", "status", "held by", "why")


def _cells(device: Device) -> Row:
    from portclaim.cli import render

    return (
        device.host,
        device.address,
        device.dev_type,
        f"{device.vendor_id}:{device.product_id}",
        render.or_dash(device.numa_node),
        render.status(device.effective_status),
        render.or_dash(device.instance_id),
        device.reason or "",
    )


def _print_tree(pages: Iterable[Sequence[Device]]) -> None:
    from portclaim.cli import render

    render.tree(chain.from_iterable(pages))


@command()
@click.argument("service", type=click.Choice(sorted(CLIENTS)))
@click.option("--host", help="The service on this host (its [DEFAULT] host). Default: any.")
@click.pass_obj
def ping(session: Session, service: str, host: str | None) -> None:
    """Ask a service over the bus whether it answers; with --url, ask the API whether a scheduler does.

    Example: portclaim ping scheduler

    Next: if the service does not answer, read its log, and check that its transport_url is the same as here.
    """
    if service == "compute_agent" and host is None:
        raise click.UsageError("compute_agent needs --host: there is one on each compute node")
    if session.http is not None and service == "scheduler" and host is None:
        session.http.ping()
        click.echo("the API is ready: a scheduler and the database answer")
        return
    client = getattr(import_module(f"portclaim.common.rpc.{service}"), CLIENTS[service])
    session.client(client, host).ping()
    click.echo(f"{service} answers")
