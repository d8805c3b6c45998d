"""Options that several commands have, and what belongs to them."""

from __future__ import annotations

import click

output_option = click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people, or for programs.",
)

limit_option = click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=10_000,
    show_default=True,
    help="Show no more than this.",
)

alias_option = click.option(
    "--alias",
    required=True,
    help="What to claim, as in the extra spec pci_passthrough:alias: NAME:COUNT[,NAME:COUNT...].",
)
extra_specs_option = click.option(
    "--extra-spec",
    "extra_specs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another extra spec of the flavor. May be repeated.",
)
hosts_option = click.option("--host", "hosts", multiple=True, help="Only on this host. May be repeated.")
numa_cells_option = click.option(
    "--numa-cell",
    "numa_cells",
    type=int,
    multiple=True,
    help="A host NUMA node that the instance runs on. May be repeated.",
)
avoid_hosts_option = click.option(
    "--avoid-host", "avoid_hosts", multiple=True, help="Not on this host. May be repeated."
)
near_option = click.option(
    "--near",
    type=click.UUID,
    multiple=True,
    metavar="CLAIM_ID",
    help="Only on the host of this claim. May be repeated.",
)
apart_from_option = click.option(
    "--apart-from",
    type=click.UUID,
    multiple=True,
    metavar="CLAIM_ID",
    help="Not on the host of this claim. May be repeated.",
)


def say_more(more: bool, limit: int, narrower: str = "") -> None:
    """Say on standard error that the list is cut off. ``narrower``: an option that makes the list shorter."""
    if more:
        hint = f", or {narrower} to see fewer" if narrower else ""
        click.echo(f"there are more than {limit}: use --limit to see more{hint}", err=True)
