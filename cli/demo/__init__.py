"""``portclaim demo``: the whole system at work in one process, with nothing left behind."""

from __future__ import annotations

import sys

import click


@click.command()
def demo() -> None:
    """See it work: real PostgreSQL, all services, this machine's devices and a simulated fleet.

    Nothing has to be installed or configured, nothing is left behind, and no real device is touched.
    """
    from portclaim.cli.demo.runner import run  # noqa: PLC0415 - the other commands need none of it

    sys.exit(run())
