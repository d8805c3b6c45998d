"""A PostgreSQL and a RabbitMQ that can be restarted without losing their data."""

import os
import shlex
import shutil
import signal
import subprocess
import urllib.error
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from portclaim.cli.embedded import INITDB_OPTIONS, install_programs
from portclaim.cli.supervisor import SupervisedProcess, supervise
from portclaim.common.db import migrate
from tests.chaos import network, privacy
from tests.support.concurrency import wait_until
from tests.support.rabbitmq import PASSWORD, USER, find_server, prepare_node, start_node, start_port_mapper

# Unlike the server of the other tests, this one must be durable.
_SETTINGS = ["--listen_addresses=", "--max_connections=200", "--fsync=on", "--synchronous_commit=on"]
_ROOM = 4 << 30  # bytes that the disk of the tablespace has
_DATABASE = "portclaim"
_ALARMS = {
    "memory": ("set_vm_memory_high_watermark", "absolute", "1MB"),
    "disk": ("set_disk_free_limit", "1000000GB"),
}
_NO_ALARMS = (  # as in tests/support/rabbitmq.py
    ("set_vm_memory_high_watermark", "absolute", "1GB"),
    ("set_disk_free_limit", "50MB"),
)


def address() -> str:
    """Where all services reach the servers of a site."""
    return network.ADDRESS if privacy.has_network() else "127.0.0.1"


class PostgreSQL:
    """The database is in a tablespace on its own disk, if the program may mount one."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._user = "nobody" if os.geteuid() == 0 else None
        self._programs = install_programs(directory, self._user)
        self._starts = 0
        initdb = [self._programs / "initdb", f"--pgdata={directory / 'data'}", *INITDB_OPTIONS]
        self._server = self._start(f"{shlex.join(map(str, initdb))} && ")
        self.url = self._url(_DATABASE)
        self._disk = Path("/mnt")
        tablespace = ""
        if privacy.has_mounts():
            self._make_disk()
            tablespace = "TABLESPACE small"
        self._administer(f"CREATE DATABASE {_DATABASE} {tablespace}")
        migrate.upgrade(self.url)
        self.engine = sa.create_engine(self.url, poolclass=sa.NullPool)

    def restart(self) -> None:
        """Stop it at once, without a checkpoint, and start it. Returns when it accepts connections."""
        os.kill(self._server.pid, signal.SIGQUIT)  # "immediate shutdown"
        self._server.wait()
        self._server = self._start()

    def terminate_backends(self) -> None:
        """End all sessions of the database but this one."""
        self.ask("""
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
        """)

    def fill_disk(self) -> None:
        """Fill the disk completely."""
        while True:
            used = os.statvfs(self._disk)
            try:
                self._resize((used.f_blocks - used.f_bfree) * used.f_frsize)
            except subprocess.CalledProcessError:  # more has been written meanwhile
                continue
            return

    def free_disk(self) -> None:
        """Free the space again."""
        self._resize(_ROOM)

    def ask(self, statement: str, **facts: Any) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement), facts)]

    def stop(self) -> None:
        self._server.stop()

    def _make_disk(self) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "none", self._disk], check=True)
        shutil.chown(self._disk, self._user or os.geteuid())
        self._administer(f"CREATE TABLESPACE small LOCATION '{self._disk}'")

    def _resize(self, size: int) -> None:
        command = ["mount", "-o", f"remount,size={size}", str(self._disk)]
        subprocess.run(command, check=True, capture_output=True)

    def _start(self, before: str = "") -> SupervisedProcess:
        self._starts += 1
        postgres = [
            *(self._programs / "postgres", "-D", self._directory / "data", "-k", self._directory),
            *_SETTINGS,
        ]
        return supervise(
            *("sh", "-c", f"{before}exec {shlex.join(map(str, postgres))}"),
            ready="ready to accept connections",
            log=self._directory / f"log.{self._starts}",
            stop_signal=signal.SIGINT,
            user=self._user,
        )

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg2://postgres@/{database}?host={self._directory}"

    def _administer(self, statement: str) -> None:
        engine = sa.create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(statement))


class RabbitMQ:
    """Also listens on the network of the hosts, if there is one. ``host``: its name in the URL, if any."""

    def __init__(self, directory: Path, host: str | None = None) -> None:
        directory.mkdir()
        self._directory = directory
        more = ""
        if privacy.has_network():
            more = f"listeners.tcp.switch = {network.ADDRESS}:{{amqp}}\nloopback_users = none\n"
        self._broker, self._environment = prepare_node(directory, more)
        start_port_mapper(directory, self._environment, os.getpid())
        self._starts = 0
        self._node = self._start()
        self.url = f"rabbit://{USER}:{PASSWORD}@{host or address()}:{self._broker.amqp}/"

    def restart(self, how: signal.Signals) -> None:
        """End it with this signal and start it. Returns when it accepts connections."""
        os.kill(self._node.pid, how)
        self._node.wait()
        self._node = self._start()

    def close_connections(self) -> None:
        """Close the connections of all clients."""
        for name in self._broker.connections():
            self._broker.close_connection(name)

    def replace(self) -> None:
        """Kill it, and start an empty one in its place. Returns when it accepts connections."""
        os.kill(self._node.pid, signal.SIGKILL)
        self._node.wait()
        shutil.rmtree(self._environment["RABBITMQ_MNESIA_BASE"])
        self._node = self._start()

    def raise_alarm(self, of: str) -> None:
        """``memory`` or ``disk``: take no messages. Returns when it has the alarm."""
        self._control(*_ALARMS[of])
        wait_until(self._has_alarm, f"RabbitMQ has an alarm of its {of}")

    def clear_alarms(self) -> None:
        """Take messages again. Returns when it has no alarm."""
        for setting in _NO_ALARMS:
            self._control(*setting)
        wait_until(lambda: not self._has_alarm(), "RabbitMQ has no alarm")

    def stop(self) -> None:
        self._node.stop()

    def _has_alarm(self) -> bool:
        try:
            self._broker.manage("GET", "health/checks/local-alarms")
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            return True
        return False

    def _control(self, *command: str) -> None:
        run = [Path(find_server() or "").with_name("rabbitmqctl"), *command]
        subprocess.run(run, check=True, env=self._environment, capture_output=True, timeout=60)

    def _start(self) -> SupervisedProcess:
        self._starts += 1
        return start_node(self._directory / f"log.{self._starts}", self._environment, os.getpid())
