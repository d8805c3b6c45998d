"""Start the database, all services and the API; wait for a signal; stop all of it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import IO, NamedTuple

import click
import sqlalchemy as sa

from portclaim.cli.demo.fleet import forget_environment
from portclaim.cli.log_file import logging_to
from portclaim.cli.serve.fleet import Services
from portclaim.cli.serve.kept_postgresql import start_kept_postgresql
from portclaim.cli.serve.load import Load
from portclaim.cli.serve.page import open_page
from portclaim.cli.supervisor import NotStarted, SupervisedProcess
from portclaim.common.db import migrate, tokens
from portclaim.common.errors import InvalidConfiguration, PortclaimError

LOG_SIZE = 10_000_000  # bytes of each of the two files
OPERATOR = "operator"
_LONGEST_STOP = 20.0  # seconds
_LOG_TAIL = 20  # lines
_EXPECTED = (PortclaimError, NotStarted, ModuleNotFoundError, OSError)


class Wanted(NamedTuple):
    """What the command line asks for."""

    directory: Path
    simulate: int
    load: bool
    listen: str
    port: int
    bus: str
    config_files: tuple[str, ...]
    opens: bool
    """Whether the page is opened in a browser."""


def run(wanted: Wanted) -> int:
    """Serve until a signal. Returns the exit status: 0 ended by a signal, 1 something went wrong."""
    forget_environment()
    log = wanted.directory / "log"
    written_before: int | None = None  # bytes of the log; None: it may be another process's
    try:
        # It is the stack's last to be closed: a start that follows waits for all that this one has started.
        with ExitStack() as stack:
            stack.enter_context(_directory_of_one(wanted.directory))
            written_before = log.stat().st_size if log.exists() else 0
            stack.enter_context(logging_to(RotatingFileHandler(log, maxBytes=LOG_SIZE, backupCount=1)))
            ended = stack.enter_context(_signals())
            click.echo("starting ...", err=True)
            _start(wanted, stack, ended)
            reason = ended.get()
            if reason is None:
                click.echo("stopping ...", err=True)
        if reason is None:
            click.echo(f"Stopped. The data stay in {wanted.directory}.", err=True)
            return 0
        raise NotStarted(reason)
    except _EXPECTED as error:
        if written_before is not None and (said := _end_of(log, written_before)):
            click.echo(said, err=True)
        click.echo(f"portclaim serve: {error}", err=True)
        return 1


def _end_of(log: Path, begin: int) -> str:
    """The last lines of the log after so many bytes; of all of it if it was begun anew since."""
    written = log.read_bytes()
    own = written[begin:] if begin <= len(written) else written
    return "\n".join(own.decode(errors="replace").splitlines()[-_LOG_TAIL:])


def _start(wanted: Wanted, stack: ExitStack, ended: SimpleQueue[str | None]) -> None:
    """Start everything; ``stack`` stops it. A server that ends by itself is told to ``ended``."""
    server, url = start_kept_postgresql(wanted.directory / "postgresql")
    stack.callback(server.stop)
    _tell_of_its_end(server, ended)
    migrate.upgrade(url)
    services = Services(wanted.directory, url, wanted.bus, wanted.listen, wanted.port, wanted.config_files)
    services.add_hosts(wanted.simulate)
    stack.callback(services.stop)
    metrics = stack.enter_context(services.metrics())
    services.start()
    if metrics is not None:
        click.echo(f"Prometheus is answered at {metrics}.")
    token = _first_token(url)
    if wanted.load:
        load = Load(services.client())
        load.start()
        stack.callback(load.stop)
    _tell(wanted, services, token)
    if wanted.opens:
        open_page(services.api.address, url, wanted.directory)


def _tell(wanted: Wanted, services: Services, token: str | None) -> None:
    hosts = ", ".join(services.hosts) or "none: start it with --simulate 3 to have some"
    click.echo(f"The API is at {services.api.address}, the data are in {wanted.directory}.")
    click.echo(f"Hosts: {hosts}.")
    if token is None:
        click.echo(f"The page: {services.api.address}/ asks for a token.")
        click.echo(
            "The first start has shown the operator's token. To make another one:\n"
            f"  {_program()} --config-file {services.config_file} token create --role operator --name NAME"
        )
    else:
        click.echo("The operator's token is shown only now. The page:")
        click.echo(f"  {services.api.address}/#token={token}")
        click.echo("In another terminal:")
        click.echo(f"  export PORTCLAIM_URL={services.api.address} PORTCLAIM_TOKEN={token}")
        click.echo(f"  {_program()} tree")
    click.echo("Ctrl-C stops it.")


def _program() -> str:
    """How to call the command line: in a clone, its virtual environment is not on the PATH."""
    beside = Path(sys.executable).with_name("portclaim")
    found = shutil.which("portclaim")
    return "portclaim" if found and Path(found).resolve() == beside.resolve() else str(beside)


def _first_token(url: str) -> str | None:
    """A token for the operator; None: there is one already."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        if any(each.role == "operator" for each in tokens.tokens(connection)):
            return None
        return tokens.create(connection, OPERATOR, "operator", None)


@contextmanager
def _directory_of_one(directory: Path) -> Iterator[IO[str]]:
    """The directory is this process's alone. Raises :class:`InvalidConfiguration` if another one has it."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidConfiguration(
                f"another portclaim serve has its data in {directory}: stop it, or name another directory "
                "with --data"
            ) from None
        yield lock


@contextmanager
def _signals() -> Iterator[SimpleQueue[str | None]]:
    """Gets None when a signal asks to stop. A second signal, or too long a stop, ends the process at once.

    Then the supervisor of PostgreSQL sees the end and stops the server.
    """
    ended: SimpleQueue[str | None] = SimpleQueue()
    asked = threading.Event()

    def end(number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()
        ended.put(None)
        limit = threading.Timer(_LONGEST_STOP, os._exit, (128 + number,))
        limit.daemon = True
        limit.start()

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, end)
    yield ended


def _tell_of_its_end(server: SupervisedProcess, ended: SimpleQueue[str | None]) -> None:
    """Wait for the end of the server's process in a thread. It may be the wanted one: then nobody listens."""
    process = os.pidfd_open(server.pid)

    def wait() -> None:
        import select

        select.select([process], [], [])
        os.close(process)
        ended.put("PostgreSQL has ended by itself: its log is postgresql.log in the directory of the data")

    threading.Thread(target=wait, daemon=True, name="end of PostgreSQL").start()
