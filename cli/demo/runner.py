"""Start everything that the demo needs, run the scenario, and stop everything, however it ends."""

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
from portclaim.cli.demo.scenario import Scenario
from portclaim.cli.demo.waiting import DemoFailed
from portclaim.cli.embedded import postgresql
from portclaim.cli.supervisor import NotStarted
from portclaim.common.db import migrate
from portclaim.common.errors import PortclaimError

LOG_TAIL = 40  # lines
_LONGEST_STOP = 30.0  # seconds
LATE = b"portclaim demo: not everything stopped in time\n"
NEXT = (
    (".venv/bin/portclaim host scan", "the PCI devices of this machine, as an agent sees them"),
    (".venv/bin/portclaim --help", "the commands of a running fleet"),
    ("make up", "a fleet in containers, which stays"),
    ("make test", "all tests, on a real PostgreSQL and RabbitMQ"),
)
"""What to try after the demo, and what it shows."""
_EXPECTED = (DemoFailed, PortclaimError, NotStarted, ModuleNotFoundError)


def run() -> int:
    """Run the demo and clean up. Answers the exit status: 0 done, 1 something was not as it should be."""
    begun = time.monotonic()
    out = Output()
    forget_environment()
    with tempfile.TemporaryDirectory(prefix="portclaim-demo-") as name, _signals_end_it(Path(name)):
        directory = Path(name)
        log = directory / "log"
        try:
            with _logging_to(log), _stage(out, directory) as scenario:
                scenario.run()
        except Exception as error:
            _show_end_of(log)
            if not isinstance(error, _EXPECTED):
                raise
            click.echo(f"portclaim demo: {error}", err=True)
            return 1
    out.console.print()
    out.title(f"Done in {time.monotonic() - begun:.1f} s. Nothing is left behind.")
    out.next(NEXT)
    return 0


@contextmanager
def _stage(out: Output, directory: Path) -> Iterator[Scenario]:
    """PostgreSQL, its schema and all services: up for the block."""
    out.title("Portclaim: one pool of SR-IOV ports, whole (PF) or in slices (VF), by demand")
    out.headline("Start everything in this one process")
    with ExitStack() as stage:
        with out.working("PostgreSQL, private and empty"):
            url = stage.enter_context(postgresql())
        with out.working("its tables, rules and views"):
            migrate.upgrade(url)
        with out.working("2 conductors, 2 schedulers, an agent per host"):
            fleet = Fleet(directory, url)
            stage.enter_context(fleet.running())
        engine = sa.create_engine(url)
        stage.callback(engine.dispose)
        yield Scenario(out, fleet, engine)


@contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    """Keep what the services log out of sight."""
    root = logging.getLogger()
    handler = logging.FileHandler(file, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(threadName)s] %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _show_end_of(log: Path) -> None:
    if log.exists():
        lines = log.read_text().splitlines()[-LOG_TAIL:]
        click.echo("\n".join(["", "The end of the services' log:", *lines, ""]), err=True)


@contextmanager
def _signals_end_it(directory: Path) -> Iterator[None]:
    """Ctrl-C and its like end the program in good order; a second one does not disturb that.

    The order comes as an exception at any point of the main thread, and so it may be lost: Python drops
    what a finalizer raises. The program then ends without order, after a while: PostgreSQL's supervisor sees
    that and stops the server, and ``directory`` is removed here.
    """
    candidates = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    signals = [each for each in candidates if signal.getsignal(each) is not signal.SIG_IGN]
    # A handler may interrupt whoever holds the locks of `threading`, and must want none of them.
    ordered: SimpleQueue[int] = SimpleQueue()

    def end(number: int, _frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        os.write(sys.stderr.fileno(), b"\nportclaim demo: stopping all that was started ...\n")
        ordered.put(128 + number)
        sys.exit(128 + number)

    def end_at_last() -> None:
        status = ordered.get()
        time.sleep(_LONGEST_STOP)
        shutil.rmtree(directory, ignore_errors=True)
        os.write(sys.stderr.fileno(), LATE)
        os._exit(status)

    threading.Thread(target=end_at_last, daemon=True).start()
    before = {each: signal.signal(each, end) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
