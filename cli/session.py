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

from portclaim.common.errors import ClaimRefused, PortclaimError

if TYPE_CHECKING:
    from oslo_config import cfg

    from portclaim.common.rpc.client import Client
    from portclaim.common.rpc.scheduler import SchedulerClient

C = TypeVar("C", bound="Client")


class Session:
    """One run of the command line. It reads and connects nothing before a command needs it."""

    def __init__(self, config_files: tuple[str, ...] = ()) -> None:
        self._config_files = config_files

    @functools.cached_property
    def conf(self) -> cfg.ConfigOpts:
        """The configuration, as the services read it."""
        from portclaim.common import config

        args = [arg for file in self._config_files for arg in ("--config-file", file)]
        return config.load(args, "portclaim")

    def client(self, kind: type[C], server: str | None = None) -> C:
        """A client with a bus connection of its own."""
        from portclaim.common.rpc.transport import transport

        # kombu logs every attempt to connect. That would hide the one line that says what to do.
        logging.getLogger("oslo.messaging").setLevel(logging.CRITICAL)
        return kind(transport(self.conf), self.conf, server)

    @property
    def scheduler(self) -> SchedulerClient:
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
