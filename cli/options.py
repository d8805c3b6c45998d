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


def say_more(more: bool, limit: int, narrower: str = "") -> None:
    """Say on standard error that the list is cut off. ``narrower``: an option that makes the list shorter."""
    if more:
        hint = f", or {narrower} to see fewer" if narrower else ""
        click.echo(f"there are more than {limit}: use --limit to see more{hint}", err=True)
