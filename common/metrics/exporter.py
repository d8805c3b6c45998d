"""The process of a service that answers Prometheus, for all workers of the service together.

Workers count in files of one directory, which the exporter reads when it is asked. So what a worker has
counted stays when the worker is killed, and no worker is interrupted by a scrape.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import IO, TYPE_CHECKING

from portclaim.common.errors import InvalidConfiguration

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

LOG = logging.getLogger(__name__)

_NAME = "portclaim-metrics-"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the directory in it has a name of its own
_BACKLOG = 16
_PATIENCE = 10.0  # seconds for a client that sends nothing


class Directory:
    """Where the workers of one service count: in memory, and gone when the service has ended.

    A service that is killed leaves its directory. The next one that starts removes it: the lock of a
    directory in use is held by the service and all of its workers.
    """

    def __init__(self) -> None:
        parent = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        _remove_left(parent)
        made = Path(tempfile.mkdtemp(prefix=f".{_NAME}", dir=parent))
        self._lock = _lock(made)
        # From now on, other services see it.
        self.path = made.rename(
            parent / made.name.removeprefix(".")
        )  # only now may another service look at it
        self._owner = os.getpid()

    def remove(self) -> None:
        """Remove it, in the process that has made it."""
        if os.getpid() == self._owner:
            shutil.rmtree(self.path, ignore_errors=True)


def _lock(directory: Path) -> IO[str]:
    """Raises BlockingIOError if another service has it."""
    lock = (directory / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise
    return lock


def _remove_left(parent: Path) -> None:
    for left in parent.glob(f"{_NAME}*"):
        with suppress(OSError), _lock(left):
            shutil.rmtree(left)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises :class:`InvalidConfiguration` if the address is not free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InvalidConfiguration(f"[metrics] listen: cannot listen on {host}:{port}: {error}") from error
    listener.listen(_BACKLOG)
    return listener


class Exporter:
    """Answers ``GET /metrics`` on a listening socket, in threads.

    ``collectors``: what it reads besides the files of the workers.
    """

    def __init__(
        self, listener: socket.socket, directory: Path, collectors: Iterable[Collector] = ()
    ) -> None:
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        self._directory = directory
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(directory))
        for collector in collectors:
            registry.register(collector)
        self._server = _Server(
            listener.getsockname()[:2], _handler(registry, self._forget_dead), bind_and_activate=False
        )
        self._server.socket.close()
        self._server.socket = listener
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()

    def _forget_dead(self) -> None:
        """Forget the gauges of workers that have ended. What they counted stays."""
        for file in self._directory.glob("gauge_live*.db"):
            found = re.search(r"_(\d+)\.db$", file.name)
            if found and int(found[1]) != os.getpid() and not _is_sibling(int(found[1])):
                file.unlink(missing_ok=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, _request: object, client_address: object) -> None:
        """A client that has gone is nothing to tell an operator."""
        LOG.debug("%s was not answered", client_address, exc_info=True)


def _is_sibling(pid: int) -> bool:
    """Has the process the same parent as this one?"""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return int(status.rpartition(")")[2].split()[1]) == os.getppid()


def _handler(registry: object, before: Callable[[], None]) -> type:
    from prometheus_client import MetricsHandler

    class Handler(MetricsHandler):
        timeout = _PATIENCE

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "metrics are at /metrics")
                return
            before()
            super().do_GET()

    return Handler.factory(registry)  # type: ignore[arg-type]
