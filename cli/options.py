"""Options that several commands have, and what belongs to them."""

from __future__ import annotations

import getpass
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import click

from portclaim.cli.completing import ALIAS, HOST

Function = TypeVar("Function", bound=Callable[..., Any])

output_option = click.option(
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="A table for people; JSON or YAML for programs.",
)

alias_option = click.option(
    "--alias",
    required=True,
    shell_complete=ALIAS,
    help="What to claim, as in the extra spec pci_passthrough:alias: NAME:COUNT[,NAME:COUNT...].",
)
extra_specs_option = click.option(
    "--extra-spec",
    "extra_specs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another extra spec of the flavor. May be repeated.",
)
hosts_option = click.option(
    "--host", "hosts", multiple=True, shell_complete=HOST, help="Only on this host. May be repeated."
)
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


who_option = click.option(
    "--who",
    default=getpass.getuser,
    show_default="your user name here",
    help="Who decides this, for the audit. With --url it is the name of the token.",
)
reason_option = click.option("--reason", help="Why, for the audit.")


def _network_settings(
    _context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> list[Any]:
    """The callback of ``--network-settings``. Raises ``click.BadParameter``."""
    from pydantic import ValidationError

    from portclaim.common.rpc.network_settings import DeviceNetworkSettings

    try:
        return [DeviceNetworkSettings.model_validate_json(text) for text in texts]
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip() for fault in error.errors())
        raise click.BadParameter("; ".join(faults)) from None


network_settings_option = click.option(
    "--network-settings",
    multiple=True,
    metavar="JSON",
    callback=_network_settings,
    help="Settings of one device, as a JSON object: request_index and device_index (default 0) say which, "
    "and mac, vlan, spoofchk, trust, link_state, min_tx_rate, max_tx_rate, mtu say what. May be repeated.",
)


_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}


def age(_context: click.Context, _parameter: click.Parameter, text: str | None) -> timedelta | None:
    """The callback of an option for an age, like 90d. Raises ``click.BadParameter``."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6})([dhms])", text)
    if found is None or int(found[1]) == 0:
        raise click.BadParameter(f"{text!r} is not an age: write a number and d, h, m or s, like 90d")
    return int(found[1]) * _UNITS[found[2]]


def age_text(found: timedelta) -> str:
    """What :func:`age` reads as this age, in the largest unit in which the number is whole."""
    unit, length = next(each for each in _UNITS.items() if not found % each[1])
    return f"{found // length}{unit}"


def age_option(name: str, help: str) -> Callable[[Function], Function]:
    """An option for an age. The command gets whole seconds, or None."""

    def seconds(*asked: Any) -> int | None:
        found = age(*asked)
        return None if found is None else round(found.total_seconds())

    return click.option(name, callback=seconds, metavar="AGE", help=f"{help} For example 90d, 12h or 30m.")
