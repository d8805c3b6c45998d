"""Run a service as worker processes that report when they are ready and stop gracefully on SIGTERM."""

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
    """A worker of a service. It runs in its own process; in the demo, several run in one process."""

    def start(self) -> None:
        """Start to answer calls, and return."""

    def stop(self) -> None:
        """Take no more work, finish the work that has begun, and return."""


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
    check: Callable[[cfg.ConfigOpts], None] = lambda _conf: None,
) -> None:
    """Run the service ``name`` until SIGTERM. Ends the process with status 0, or 1 if it cannot start.

    ``check`` looks at what the service depends on before any worker starts.
    """
    program = f"portclaim-{name.replace('_', '-')}"
    try:
        conf = config.load(sys.argv[1:], program, flags)
        build(conf)  # refuses an invalid configuration once, before any worker starts
        check(conf)
    except PortclaimError as error:
        sys.exit(f"{program}: {error}")
    log.setup(conf, "portclaim")
    for explanation in config.explanations(conf):
        LOG.info("%s", explanation)
    manager = cotyledon.ServiceManager(graceful_shutdown_timeout=60)
    manager.add(_Worker, workers(conf), args=(program, lambda: build(conf)))
    manager.run()
