"""``portclaim demo``: the whole system in one process. Nothing is left behind."""

from __future__ import annotations

import sys

import click


@click.command()
def demo() -> None:
    """See Portclaim work, in one process and in under a minute.

    Example: portclaim demo

    It starts a real PostgreSQL, all services and simulated hosts, and shows the devices of this machine. It
    needs no configuration, leaves nothing behind and does not touch a real device.

    Next: it ends with commands to try.
    """
    from portclaim.cli.demo.runner import run

    sys.exit(run())
