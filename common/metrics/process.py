"""Metrics of a service that runs as processes: its workers count, and one more process answers Prometheus."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cotyledon
from cotyledon.types import WorkerId
from oslo_config import cfg

from portclaim.common.metrics import exporter, kinds, options

LOG = logging.getLogger(__name__)


class Metrics:
    """The metrics of one service. Without ``[metrics] listen`` this does nothing."""

    def __init__(self, conf: cfg.ConfigOpts, service: str) -> None:
        """Listen, so that a port in use ends the start. Raises :class:`InvalidConfiguration`."""
        where = options.address(conf, service)
        self._listener = None if where is None else exporter.listen(*where)
        self._directory: exporter.Directory | None = None

    def count_here(self) -> None:
        """Count in this process, which is a worker."""
        if self._directory is not None:
            kinds.switch_on(self._directory.path)

    @contextmanager
    def exported(self, manager: cotyledon.ServiceManager, program: str) -> Iterator[None]:
        """Have ``manager`` run the exporter beside the workers that it starts in the block."""
        if self._listener is None:
            yield
            return
        host, port = self._listener.getsockname()[:2]
        where = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
        self._directory = exporter.Directory()
        try:
            manager.add(
                _ExporterProcess, args=(self._listener, self._directory, f"{program}: metrics at {where}")
            )
            yield
        finally:
            self._directory.remove()


class _ExporterProcess(cotyledon.Service):
    def __init__(
        self, worker_id: WorkerId, listener: socket.socket, directory: exporter.Directory, ready: str
    ) -> None:
        super().__init__(worker_id)
        self._exporter = exporter.Exporter(listener, directory.path)
        self._ready = ready
        self._ended = threading.Event()

    def run(self) -> None:
        self._exporter.start()
        LOG.info("%s", self._ready)
        self._ended.wait()

    def terminate(self) -> None:
        self._exporter.stop()
        self._ended.set()
