"""Run a service as processes: workers, readiness, and a graceful end on SIGTERM."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import cotyledon
from cotyledon.types import WorkerId
from oslo_config import cfg
from oslo_log import log

from portclaim.common import config
from portclaim.common.errors import PortclaimError

LOG = logging.getLogger(__name__)


class Service(Protocol):
    """What can be started in a process of its own or, in the demo, beside others in one process."""

    def start(self) -> None:
        """Return once calls are answered."""

    def stop(self) -> None:
        """Take no more work, finish what is in hand, and return."""


class _Worker(cotyledon.Service):
    def __init__(self, worker_id: WorkerId, name: str, build: Callable[[], Service]) -> None:
        super().__init__(worker_id)
        self._name = name
        self._service = build()

    def run(self) -> None:
        self._service.start()
        LOG.info("%s ready", self._name)

    def terminate(self) -> None:
        self._service.stop()
        LOG.info("%s stopped", self._name)


def main(
    name: str,
    build: Callable[[cfg.ConfigOpts], Service],
    workers: Callable[[cfg.ConfigOpts], int] = lambda _conf: 1,
    flags: Sequence[cfg.Opt] = (),
) -> None:
    """The body of ``python -m services.<name>``. Ends the process: 0 after SIGTERM, 1 if it cannot start."""
    try:
        conf = config.load(sys.argv[1:], f"portclaim-{name}", flags)
        build(conf)  # what cannot be honoured is refused here, by the first process, and not by every worker
    except PortclaimError as error:
        sys.exit(f"portclaim-{name}: {error}")
    log.setup(conf, "portclaim")
    manager = cotyledon.ServiceManager(graceful_shutdown_timeout=60)
    manager.add(_Worker, workers(conf), args=(f"portclaim-{name}", lambda: build(conf)))
    manager.run()
