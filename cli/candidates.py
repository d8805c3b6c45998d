"""``portclaim candidates``."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from portclaim.cli.claims import specs
from portclaim.cli.options import (
    alias_option,
    apart_from_option,
    avoid_hosts_option,
    extra_specs_option,
    hosts_option,
    near_option,
    numa_cells_option,
    output_option,
)
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from portclaim.cli.table import Table
    from portclaim.common.rpc.candidate_messages import Candidate

MOST = 1000  # A test compares it with the message's own limit.


@command()
@alias_option
@extra_specs_option
@hosts_option
@avoid_hosts_option
@numa_cells_option
@near_option
@apart_from_option
@click.option(
    "--limit",
    type=click.IntRange(1, MOST),
    default=10,
    show_default=True,
    help="Show no more hosts than this.",
)
@click.option(
    "--after", metavar="TEXT", help="The hosts that come next: the text that the last call printed."
)
@output_option
@click.pass_obj
def candidates(
    session: Session,
    alias: str,
    extra_specs: tuple[str, ...],
    hosts: tuple[str, ...],
    avoid_hosts: tuple[str, ...],
    numa_cells: tuple[int, ...],
    near: tuple[uuid.UUID, ...],
    apart_from: tuple[uuid.UUID, ...],
    limit: int,
    after: str | None,
    output: str,
) -> None:
    """List the hosts that could serve a claim now, the best first. Reserves nothing.

    Example: portclaim candidates --alias nic-vf:2 --limit 3

    The order is that of the packing policy. The table shows the devices that a claim on the host would get,
    and what the host would have available after that: whole ports (PFs), VFs and other devices that fit. With
    --output json, the answer has what --after takes.

    Next: portclaim claim with the same options and --host HOST. If no host is shown: portclaim explain.
    """
    from portclaim.cli import documents, render
    from portclaim.common.rpc.candidate_messages import CandidatesRequest

    request = CandidatesRequest(
        extra_specs=specs(alias, extra_specs),
        hosts=list(hosts) or None,
        avoid_hosts=list(avoid_hosts),
        numa_cells=list(numa_cells),
        near=list(near),
        apart_from=list(apart_from),
        limit=limit,
        after=after,
    )
    found = session.scheduler.candidates(request)
    if output != "table":
        documents.document(output, found)
        return
    render.console().print(_table(found.candidates))
    if found.queued:
        click.echo(
            f"claims with the same requests are waiting in a queue: {found.queued}. A new claim would not be "
            "served before them",
            err=True,
        )
    if found.after is not None:
        click.echo(f"there are more hosts: use --limit, or --after {found.after}", err=True)


def _table(candidates: Sequence[Candidate]) -> Table:
    from portclaim.cli.table import Table

    table = Table("host", "devices", "PFs left", "VFs left", "others left")
    for each in candidates:
        devices = ", ".join(device.address for device in each.devices)
        left = each.left
        table.add_row(each.host, devices, str(left.pfs), str(left.vfs), str(left.others))
    return table
