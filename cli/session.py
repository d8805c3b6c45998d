"""What all commands share: the configuration, clients of the services, and how errors end the program.

Imports of the bus and of pydantic wait until a command needs them: they take most of a second.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from portclaim.common.errors import ClaimRefused, InvalidRequest, PortclaimError

if TYPE_CHECKING:
    from oslo_config import cfg

    from portclaim.cli.http_client import HttpScheduler
    from portclaim.common.rpc.client import Client
    from portclaim.common.rpc.scheduler import SchedulerClient

C = TypeVar("C", bound="Client")


class Session:
    """One run of the command line. It reads and connects nothing before a command needs it.

    ``url``: the HTTP API; None: commands speak RPC.
    """

    def __init__(self, config_files: tuple[str, ...] = (), url: str | None = None) -> None:
        self.config_files = config_files
        self.url = url

    @functools.cached_property
    def conf(self) -> cfg.ConfigOpts:
        """The configuration, as the services read it."""
        from portclaim.common import config

        args = [arg for file in self.config_files for arg in ("--config-file", file)]
        return config.load(args, "portclaim")

    @functools.cached_property
    def http(self) -> HttpScheduler | None:
        """A client of the HTTP API; None: no URL was given, and commands speak RPC."""
        if self.url is None:
            return None
        from portclaim.cli.http_client import HttpScheduler

        return HttpScheduler(self.url, self.token)

    @property
    def token(self) -> str:
        """The token for the API; empty: none was given. Raises :class:`InvalidConfiguration`."""
        from portclaim.common.secret_files import from_environment

        return from_environment("PORTCLAIM_TOKEN") or ""

    def client(self, kind: type[C], server: str | None = None) -> C:
        """A client with a bus connection of its own. Raises :class:`InvalidRequest` where HTTP is spoken."""
        if self.url is not None:
            raise InvalidRequest(
                "this command needs the message bus: unset PORTCLAIM_URL, and name a configuration with "
                "[DEFAULT] transport_url"
            )
        from portclaim.common.rpc.transport import transport
        from portclaim.common.trust.services_key import ServicesKey

        # kombu logs every attempt to connect. That would hide the one line that says what to do.
        logging.getLogger("oslo.messaging").setLevel(logging.CRITICAL)
        bus = transport(self.conf, makes_exchange=False)
        # Agents take orders of an operator who has the services' key.
        return kind(bus, self.conf, server, ServicesKey(self.conf).signer())

    @property
    def scheduler(self) -> SchedulerClient | HttpScheduler:
        """The scheduler, over HTTP or RPC."""
        if self.http is not None:
            return self.http
        from portclaim.common.rpc.scheduler import SchedulerClient

        return self.client(SchedulerClient)


def command(
    name: str | None = None, group: click.Group | None = None
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command, in ``group`` if there is one. Its errors end the program with status 1."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except PortclaimError as error:
                _fail(error)
            except ValueError as error:
                from pydantic import ValidationError

                if not isinstance(error, ValidationError):
                    raise
                # The value of an option is not valid in the message that it is for.
                faults = (f"{fault['input']!r}: {fault['msg']}" for fault in error.errors())
                raise click.UsageError("; ".join(faults)) from None

        return group.command(name)(run) if group is not None else click.command(name)(run)

    return decorate


def _fail(error: PortclaimError) -> NoReturn:
    click.echo(f"portclaim: {error.message}", err=True)
    if isinstance(error, ClaimRefused):
        for row in error.kwargs.get("explanation", {}).get("filters", ()):
            line = f"  after {row['filter']}: {row['hosts']} hosts, {row['devices']} devices"
            click.echo(line, err=True)
    sys.exit(1)
