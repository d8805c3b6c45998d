"""Metrics of a service that runs as processes: its workers count, and one more process answers Prometheus."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import cotyledon
from cotyledon.types import WorkerId
from oslo_config import cfg

from portclaim.common.metrics import catalogue, exporter, kinds, options, sampling

if TYPE_CHECKING:
    from prometheus_client import Metric

LOG = logging.getLogger(__name__)


class RunningCollector(Protocol):
    """A collector of prometheus_client that reads in a thread."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def describe(self) -> Iterable[Metric]: ...

    def collect(self) -> Iterable[Metric]: ...


class Metrics:
    """The metrics of one service. Without ``[metrics] listen`` this does nothing."""

    def __init__(self, conf: cfg.ConfigOpts, service: str) -> None:
        """Listen, so that a port in use ends the start. Raises :class:`InvalidConfiguration`."""
        self._service = service
        where = options.address(conf, service)
        self._listener = None if where is None else exporter.listen(*where)
        self._directory: exporter.Directory | None = None

    def count_here(self) -> None:
        """Count in this process, which is a worker."""
        if self._directory is not None:
            kinds.switch_on(self._directory.path, self._service)
            catalogue.WORKER.set(1)
            sampling.begin()

    @contextmanager
    def exported(
        self,
        manager: cotyledon.ServiceManager,
        program: str,
        collectors: Callable[[], Sequence[RunningCollector]],
    ) -> Iterator[None]:
        """Have ``manager`` run the exporter beside the workers that it starts in the block.

        ``collectors`` makes what the exporter reads besides what the workers count.
        """
        if self._listener is None:
            yield
            return
        self._directory = exporter.Directory()
        try:
            ready = f"{program}: metrics at {_url(self._listener)}"
            manager.add(_ExporterProcess, args=(self._listener, self._directory, collectors, ready))
            yield
        finally:
            self._directory.remove()


@contextmanager
def exported_by_this_process(
    conf: cfg.ConfigOpts, collectors: Callable[[], Sequence[RunningCollector]]
) -> Iterator[str | None]:
    """Count and answer for all services, which are threads of this process. Yields the address; None: there
    are no metrics.
    """
    where = options.address(conf, "scheduler")
    if where is None:
        yield None
        return
    listener = exporter.listen(*where)
    directory = exporter.Directory()
    running = list(collectors())
    kinds.switch_on(directory.path, *options.PORTS)
    catalogue.WORKER.set(1)
    sampling.begin()
    answering = exporter.Exporter(listener, directory.path, running)
    for each in running:
        each.start()
    answering.start()
    try:
        yield _url(listener)
    finally:
        answering.stop()
        for each in running:
            each.stop()
        directory.remove()


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


class _ExporterProcess(cotyledon.Service):
    """SIGHUP ends it, and the manager starts it anew: then its collectors have the new configuration."""

    def __init__(
        self,
        worker_id: WorkerId,
        listener: socket.socket,
        directory: exporter.Directory,
        collectors: Callable[[], Sequence[RunningCollector]],
        ready: str,
    ) -> None:
        super().__init__(worker_id)
        self._collectors = collectors()
        self._exporter = exporter.Exporter(listener, directory.path, self._collectors)
        self._ready = ready
        self._ended = threading.Event()

    def run(self) -> None:
        for each in self._collectors:
            each.start()
        self._exporter.start()
        LOG.info("%s", self._ready)
        self._ended.wait()

    def terminate(self) -> None:
        self._exporter.stop()
        for each in self._collectors:
            each.stop()
        self._ended.set()
