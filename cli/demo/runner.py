"""Start everything that the demo needs, run the scenario, and stop everything, also after a failure."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

import click
import sqlalchemy as sa

from portclaim.cli.demo.fleet import Fleet, forget_environment
from portclaim.cli.demo.output import Output
from portclaim.cli.demo.polling import DemoFailed
from portclaim.cli.demo.scenario import Scenario
from portclaim.cli.embedded import postgresql
from portclaim.cli.log_file import logging_to
from portclaim.cli.supervisor import NotStarted
from portclaim.common.db import migrate
from portclaim.common.errors import PortclaimError

LOG_TAIL = 40  # lines
_LONGEST_STOP = 30.0  # seconds
LATE = b"portclaim demo: not everything stopped in time\n"
_EXPECTED = (DemoFailed, PortclaimError, NotStarted, ModuleNotFoundError)


def run(out: Output | None = None) -> int:
    """Run the demo and clean up. Returns the exit status: 0 done, 1 something was not as expected."""
    begun = time.monotonic()
    out = out or Output()
    forget_environment()
    with tempfile.TemporaryDirectory(prefix="portclaim-demo-") as name, _signals_end_it(Path(name)):
        directory = Path(name)
        log = directory / "log"
        try:
            with logging_to(logging.FileHandler(log, delay=True)), _scenario(out, directory) as scenario:
                scenario.run()
        except Exception as error:
            _show_end_of(log)
            if not isinstance(error, _EXPECTED):
                raise
            click.echo(f"portclaim demo: {error}", err=True)
            return 1
    out.console.print()
    out.title(f"Done in {time.monotonic() - begun:.1f} s. Nothing is left behind.")
    out.next(next_commands(Path()))
    return 0


def next_commands(directory: Path) -> list[tuple[str, str]]:
    """Commands to try after the demo, and what each shows. They work in ``directory``."""
    in_source_tree = (directory / "Makefile").exists() and (directory / ".venv").exists()
    program = ".venv/bin/portclaim" if in_source_tree else "portclaim"
    commands = [
        (f"{program} host scan", "the PCI devices of this machine, as an agent sees them"),
        (f"{program} --help", "the commands of a running fleet"),
    ]
    if in_source_tree:
        commands += [
            ("make up", "a fleet in containers, which runs until `make down`"),
            ("make test", "all tests, on a real PostgreSQL and a real RabbitMQ"),
        ]
    return commands


@contextmanager
def _scenario(out: Output, directory: Path) -> Iterator[Scenario]:
    """The scenario. PostgreSQL, its schema and all services run until the end of the block."""
    out.title("Portclaim: one pool of SR-IOV ports, whole (PF) or in slices (VF), by demand")
    out.headline("Start everything in this one process")
    with ExitStack() as stage:
        with out.working("a private, empty PostgreSQL"):
            url = stage.enter_context(postgresql())
        with out.working("the database schema"):
            migrate.upgrade(url)
        with out.working("2 conductors, 2 schedulers, an agent for each host"):
            fleet = Fleet(directory, url)
            stage.enter_context(fleet.running())
        engine = sa.create_engine(url)
        stage.callback(engine.dispose)
        yield Scenario(out, fleet, engine)


def _show_end_of(log: Path) -> None:
    if log.exists():
        lines = log.read_text().splitlines()[-LOG_TAIL:]
        click.echo("\n".join(["", "The end of the services' log:", *lines, ""]), err=True)


@contextmanager
def _signals_end_it(directory: Path) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP stop everything and end the program. A second signal is ignored.

    A signal raises SystemExit at any point of the main thread. This exception can be lost: Python drops what
    a finalizer raises. Then the program is ended by force after ``_LONGEST_STOP``: this removes
    ``directory``, and PostgreSQL's supervisor sees the end and stops the server.
    """
    candidates = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    signals = [each for each in candidates if signal.getsignal(each) is not signal.SIG_IGN]
    # The handler may interrupt code that holds a lock of `threading`, and must not need one: a SimpleQueue.
    ordered: SimpleQueue[int] = SimpleQueue()

    def end(number: int, _frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        os.write(sys.stderr.fileno(), b"\nportclaim demo: stopping everything that was started ...\n")
        ordered.put(128 + number)
        sys.exit(128 + number)

    def end_by_force() -> None:
        status = ordered.get()
        time.sleep(_LONGEST_STOP)
        shutil.rmtree(directory, ignore_errors=True)
        os.write(sys.stderr.fileno(), LATE)
        os._exit(status)

    threading.Thread(target=end_by_force, daemon=True).start()
    before = {each: signal.signal(each, end) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
