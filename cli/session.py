"""What every command shares: the configuration, the way to the services, and how errors end the program."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click
from oslo_config import cfg
from pydantic import ValidationError

from portclaim.common import config
from portclaim.common.errors import ClaimRefused, PortclaimError
from portclaim.common.rpc.client import Client
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport

C = TypeVar("C", bound=Client)


class Session:
    """One run of the command line; nothing is read or connected before a command needs it."""

    def __init__(self, config_files: tuple[str, ...] = ()) -> None:
        self._config_files = config_files

    @functools.cached_property
    def conf(self) -> cfg.ConfigOpts:
        """The configuration, as the services read it."""
        args = [arg for file in self._config_files for arg in ("--config-file", file)]
        return config.load(args, "portclaim")

    def client(self, kind: type[C], server: str | None = None) -> C:
        """A client on a bus of its own."""
        # kombu's account of every attempt to connect would bury the one line that says what to do.
        logging.getLogger("oslo.messaging").setLevel(logging.CRITICAL)
        return kind(transport(self.conf), self.conf, server)

    @property
    def scheduler(self) -> SchedulerClient:
        return self.client(SchedulerClient)


def command(group: click.Group, name: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """Add a function to ``group`` as a command whose errors end the program with status 1."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except PortclaimError as error:
                _fail(error)
            except ValidationError as error:
                # What a flag says does not fit into the message that it is for.
                faults = (f"{fault['input']!r}: {fault['msg']}" for fault in error.errors())
                raise click.UsageError("; ".join(faults)) from None

        return group.command(name)(run)

    return decorate


def _fail(error: PortclaimError) -> NoReturn:
    click.echo(f"portclaim: {error.message}", err=True)
    if isinstance(error, ClaimRefused):
        for row in error.kwargs.get("explanation", {}).get("filters", ()):
            line = f"  after {row['filter']}: {row['hosts']} hosts, {row['devices']} devices"
            click.echo(line, err=True)
    sys.exit(1)
