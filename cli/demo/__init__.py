"""``portclaim demo``: the whole system in one process. Nothing is left behind."""

from __future__ import annotations

import sys

import click


@click.command()
def demo() -> None:
    """See Portclaim work, in one process and in under a minute.

    It starts a real PostgreSQL, all services and simulated hosts, and shows the devices of this machine. It
    needs no configuration, leaves nothing behind and does not touch a real device.
    """
    from portclaim.cli.demo.runner import run  # noqa: PLC0415 - the other commands need none of it

    sys.exit(run())
