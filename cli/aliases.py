"""``portclaim alias list``: which devices of the fleet each alias gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from portclaim.cli.options import output_option
from portclaim.cli.session import Session, command

if TYPE_CHECKING:
    from portclaim.cli.table import Table
    from portclaim.common.rpc.alias_messages import Aliases, AliasSummary

_COLUMNS = ("alias", "asks for", "numa", "devices", "available", "but for their type", "what to do")


@click.group("alias")
def alias() -> None:
    """See which devices the aliases of [pci] alias get."""


@command("list", group=alias)
@output_option
@click.pass_obj
def list_(session: Session, output: str) -> None:
    """List the aliases of the scheduler: how many devices of the fleet match each now.

    Example: portclaim alias list

    It also shows how many devices would match but for their type, because the type is the most common mistake
    in an alias.

    Next: portclaim config check FILE checks the entries of a file, and says more about each.
    """
    from portclaim.cli import documents, render

    answer = session.scheduler.aliases()
    if output != "table":
        documents.document(output, answer.aliases)
    elif answer.aliases:
        render.console().print(_table(answer))
    else:
        click.echo("the scheduler has no [pci] alias")


def _table(answer: Aliases) -> Table:
    from portclaim.cli.table import Table

    table = Table(*_COLUMNS)
    for each in answer.aliases:
        others = ", ".join(f"{count} {dev_type}" for dev_type, count in each.of_other_types.items())
        cells = (
            each.name,
            _spec(each),
            each.numa_policy,
            each.devices,
            each.available,
            others,
            _advice(each),
        )
        table.add_row(*map(str, cells))
    return table


def _spec(alias: AliasSummary) -> str:
    return " | ".join(
        " ".join(f"{key}={value}" for key, value in alternative.items()) for alternative in alias.spec
    )


def _advice(alias: AliasSummary) -> str:
    if alias.devices:
        return ""
    if not alias.of_other_types:
        return "no device of the fleet is of this kind"
    return "write " + " or ".join(f'"device_type": "{dev_type}"' for dev_type in alias.of_other_types)
