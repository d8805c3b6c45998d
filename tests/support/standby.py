"""A PostgreSQL primary with a synchronous standby, both private to a test, and how to fail over."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from portclaim.cli.embedded import INITDB_OPTIONS, install_programs
from portclaim.cli.supervisor import SupervisedProcess, supervise
from portclaim.common.db import migrate
from tests.support.concurrency import wait_until
from tests.support.engines import run_owner
from tests.support.place import Place
from tests.support.rabbitmq import free_ports

DATABASE = "portclaim"
_HERE = Place()
_SYNCHRONOUS = "ALTER SYSTEM SET synchronous_standby_names = '*'"

PROMOTED_WITHIN = 60.0  # seconds, as PostgreSQL waits


class Node:
    """One server: its data, and the process while it runs. It ends with the process ``owner``.

    ``owner`` is by default the run of the tests. ``place``: where it runs.
    """

    def __init__(self, directory: Path, owner: int | None = None, place: Place = _HERE) -> None:
        user = "nobody" if os.geteuid() == 0 else None
        self._place = place
        self.address = place.address
        [self.port] = free_ports(1)
        self.data = directory / "data"
        self._directory = directory
        self._user = user
        self._owner = owner
        self._starts = 0
        self._server: SupervisedProcess | None = None
        directory.mkdir()
        self._programs = install_programs(directory, user)
        if user is not None:
            shutil.chown(directory, user)

    @property
    def log(self) -> str:
        return "".join(file.read_text() for file in sorted(self._directory.glob("log.*")))

    def start(self, *settings: str, ready: str = "ready to accept connections") -> None:
        """Start it with the data that it has. ``settings``: more flags of the server."""
        self._starts += 1
        start = partial(
            supervise,
            *(self._programs / "postgres", "-D", self.data, "-k", self._directory, "-p", str(self.port)),
            *(f"--listen_addresses={self.address}", "--max_connections=100", "--fsync=on"),
            *("--wal_keep_size=256MB", "--wal_receiver_timeout=5s", "--wal_sender_timeout=5s"),
            *settings,
            ready=ready,
            log=self._directory / f"log.{self._starts}",
            stop_signal=signal.SIGINT,
            user=self._user,
            owner=self._owner or run_owner(),
        )
        self._server = self._place.run(start)

    def make(self) -> None:
        """Make new data, start, and make the database."""
        self.run("initdb", f"--pgdata={self.data}", *INITDB_OPTIONS)
        with (self.data / "pg_hba.conf").open(
            "a"
        ) as access:  # from hosts of a network that the test has made
            access.write("host all all samenet trust\nhost replication all samenet trust\n")
        self.start()
        self.tell(f"CREATE DATABASE {DATABASE}", "postgres")
        migrate.upgrade(self.url())

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of PostgreSQL's programs as the server's user."""
        command = [str(part) for part in (self._programs / program, *arguments)]
        done = subprocess.run(
            command,
            user=self._user,
            extra_groups=[] if self._user else None,
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"

    def kill(self) -> None:
        """Kill all of its processes, as a lost machine would."""
        for pid in self._processes():
            os.kill(pid, signal.SIGKILL)
        self._ended()

    def pause(self) -> None:
        """Stop all of its processes where they are. Connections stay open, and nobody answers."""
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after a pause."""
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it, whatever its state. Nobody needs its data any more."""
        if self._server is not None:
            self.kill()

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        """Ask this server, whether it is the primary or the standby."""
        with self.connected() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement))]

    def set(self, **settings: str | None) -> None:
        """Change settings, and have the server read them. None: as they were."""
        for name, value in settings.items():
            change = f"RESET {name}" if value is None else f"SET {name} = '{value}'"
            self.tell(f"ALTER SYSTEM {change}")
        self.tell("SELECT pg_reload_conf()")
        for name, value in settings.items():
            if value is not None:
                wait_until(lambda n=name, v=value: self.ask(f"SHOW {n}") == [(v,)], f"{name} is {value}")

    def tell(self, statement: str, database: str = DATABASE) -> None:
        with self.connected(database) as connection:
            connection.execute(sa.text(statement))

    @contextmanager
    def connected(self, database: str = DATABASE) -> Iterator[sa.Connection]:
        """A connection that commits each statement."""
        engine = sa.create_engine(self.url(database), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            yield connection

    def url(self, database: str = DATABASE) -> str:
        return f"postgresql+psycopg2://postgres@{self.address}:{self.port}/{database}?connect_timeout=10"

    def _processes(self) -> list[int]:
        """The postmaster first, so that it starts no more. Its children are no group of it."""
        assert self._server is not None
        postmaster = self._server.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]

    def _ended(self) -> None:
        assert self._server is not None
        self._server.wait()
        self._server = None


class Pair:
    """A primary, and a standby without which the primary commits nothing. ``places``: where they run."""

    def __init__(
        self, directory: Path, owner: int | None = None, places: tuple[Place, Place] = (_HERE, _HERE)
    ) -> None:
        self.primary = Node(directory / "a", owner, places[0])
        self.standby = Node(directory / "b", owner, places[1])
        self._nodes = (self.primary, self.standby)
        self.primary.make()
        self.join()

    @property
    def url(self) -> str:
        """The URL that a service gets: both servers, and only the one that takes writes."""
        hosts = "&".join(f"host={node.address}:{node.port}" for node in self._nodes)
        return f"postgresql+psycopg2://postgres@/{DATABASE}?{hosts}&target_session_attrs=read-write"

    def join(self) -> None:
        """Make the standby anew from the primary. From then on the primary waits for it at each commit."""
        source, standby = self.primary, self.standby
        shutil.rmtree(standby.data, ignore_errors=True)
        address = ["-h", source.address, "-p", str(source.port), "-U", "postgres"]
        standby.run("pg_basebackup", *address, "-D", standby.data, "-R", "-c", "fast", "-X", "stream")
        standby.start(ready="ready to accept read-only connections")
        source.tell(_SYNCHRONOUS)
        source.tell("SELECT pg_reload_conf()")
        wait_until(
            lambda: source.ask("SELECT sync_state FROM pg_stat_replication") == [("sync",)],
            "the standby is synchronous",
        )

    def wait_for_standby(self, waits: bool) -> None:
        """Do commits of the primary wait for the standby? They do from the start."""
        self.primary.tell(_SYNCHRONOUS if waits else "ALTER SYSTEM SET synchronous_standby_names = ''")
        self.primary.tell("SELECT pg_reload_conf()")
        state = "sync" if waits else "async"
        wait_until(
            lambda: self.primary.ask("SELECT sync_state FROM pg_stat_replication") == [(state,)],
            f"the standby is {state}",
        )

    def promote(self) -> None:
        """Make the standby the primary. It waits for no standby of its own until one joins."""
        self.standby.tell("ALTER SYSTEM RESET synchronous_standby_names")
        self.standby.tell("SELECT pg_reload_conf()")
        # A statement that waits for the promotion may be cancelled by what the standby still replays.
        self.standby.tell("SELECT pg_promote(wait => false)")
        wait_until(self._is_promoted, "the standby is the primary", PROMOTED_WITHIN)
        self.primary, self.standby = self.standby, self.primary

    def _is_promoted(self) -> bool:
        return self.standby.ask("SELECT pg_is_in_recovery()") == [(False,)]

    def stop(self) -> None:
        for node in self._nodes:
            node.stop()
