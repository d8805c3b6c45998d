"""``portclaim serve``: the whole system on one machine, with its data kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from portclaim.cli.secret_options import given_secretly
from portclaim.cli.session import Session, command

_PORT = 9610  # as [api] port: a test compares them


def default_directory() -> Path:
    """Where the data are without ``--data``."""
    if os.geteuid() == 0:  # PostgreSQL does not run as root, and its user cannot enter root's home
        return Path("/var/lib/portclaim/serve")
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(home) / "portclaim"


@command()
@click.option(
    "--data",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is kept. Default: $XDG_DATA_HOME/portclaim; for root /var/lib/portclaim/serve.",
)
@click.option(
    "--simulate",
    type=click.IntRange(0, 100),
    default=0,
    metavar="N",
    help="Have at least N simulated hosts. Those of earlier starts are there again anyway.",
)
@click.option("--load", is_flag=True, help="Let random clients claim and release on the simulated hosts.")
@click.option("--listen", default="127.0.0.1", show_default=True, help="The API's address.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=_PORT, show_default=True, help="The API's port. 0: any."
)
@click.option(
    "--bus",
    metavar="URL",
    default="fake://",
    callback=given_secretly,
    envvar="PORTCLAIM_SERVE_BUS",
    show_envvar=True,
    help="RabbitMQ, as rabbit://user:password@host:5672/vhost. Default: a bus within this process. With a "
    "password, set PORTCLAIM_SERVE_BUS to it, or PORTCLAIM_SERVE_BUS_FILE to a file that has it.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@click.pass_obj
def serve(
    session: Session,
    directory: Path | None,
    simulate: int,
    load: bool,
    listen: str,
    port: int,
    bus: str,
    opens: bool,
) -> None:
    """Run all of Portclaim on this machine, until Ctrl-C: database, services and HTTP API.

    Example: portclaim serve --simulate 3

    It needs no other server: PostgreSQL comes from a Python package and runs as a child of this program. The
    schema is upgraded at the start. The first start prints a token for the operator. After Ctrl-C, or after a
    crash, the next start goes on where the last one ended.

    With --config-file (before serve), aliases and device_spec come from that file. If it has a device_spec
    and there is no simulated host, this machine's own devices are offered.

    The page at the API's address shows the fleet. It asks for a token.

    Next: export PORTCLAIM_URL and PORTCLAIM_TOKEN as it prints them, then portclaim tree.
    """
    from portclaim.cli.serve.runner import Wanted, run

    wanted = Wanted(
        (directory or default_directory()).absolute(),
        simulate,
        load,
        listen,
        port,
        bus,
        session.config_files,
        opens,
    )
    status = run(wanted)
    sys.stdout.flush()
    os._exit(status)  # all has stopped: do not wait some seconds for idle threads of libraries
