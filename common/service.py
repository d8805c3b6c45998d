"""Run a service as worker processes that report when they are ready and stop gracefully on SIGTERM."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import cotyledon
from cotyledon.types import WorkerId
from oslo_config import cfg
from oslo_log import log

from portclaim.common import config, log_context, tracing
from portclaim.common.errors import PortclaimError
from portclaim.common.metrics.process import Metrics, RunningCollector
from portclaim.common.rpc.bus_url import bus_url
from portclaim.common.rpc.insecure import warnings

LOG = logging.getLogger(__name__)


class Service(Protocol):
    """A worker of a service. It runs in its own process; in the demo, several run in one process."""

    def start(self) -> None:
        """Start to answer calls, and return."""

    def stop(self) -> None:
        """Take no more work, finish the work that has begun, and return."""

    def reload(self, conf: cfg.ConfigOpts) -> None:
        """Take the section ``[pci]``, and nothing else, of a configuration that was read again.

        It may be called before :meth:`start`. Raises :class:`InvalidConfiguration`: then nothing has changed.
        """


class _Worker(cotyledon.Service):
    def __init__(
        self,
        worker_id: WorkerId,
        name: str,
        build: Callable[[], Service],
        again: _Again,
        observe: Callable[[], None],
    ) -> None:
        super().__init__(worker_id)
        observe()
        self._name = name
        self._service = build()
        self._again = again
        if again.latest is not None:  # it replaces a worker that has ended
            self._service.reload(again.latest)

    def run(self) -> None:
        self._service.start()
        LOG.info("%s ready", self._name)

    def reload(self) -> None:
        conf = self._again.read()
        if conf is None:
            return
        try:
            self._service.reload(conf)
        except PortclaimError as error:
            self._again.refuse(error)
        except Exception:
            LOG.exception("%s could not take [pci] again, and the old section goes on", self._name)
        else:
            LOG.info("%s has read [pci] again, and it is in force", self._name)

    def terminate(self) -> None:
        self._service.stop()
        tracing.end()
        LOG.info("%s stopped", self._name)


class _Again:
    """Reads the configuration again on SIGHUP. ``latest``: the last one that was valid; None: the first."""

    def __init__(self, load: Callable[[], cfg.ConfigOpts], never_started: Service) -> None:
        self._load = load
        self._never_started = never_started
        self.latest: cfg.ConfigOpts | None = None

    def note(self) -> None:
        """Have workers that start later take the configuration, if it is valid. If not, the others log it."""
        with suppress(PortclaimError, SystemExit):
            conf = self._load()
            self._never_started.reload(conf)
            self.latest = conf

    def read(self) -> cfg.ConfigOpts | None:
        """The configuration as it is now. None: it is refused, and the reason is logged."""
        try:
            return self._load()
        except PortclaimError as error:
            self.refuse(error)
        except SystemExit:
            self.refuse("an option has an invalid value")
        return None

    def refuse(self, reason: object) -> None:
        LOG.error("the new configuration is refused, and the old one goes on: %s", reason)


def main(  # noqa: PLR0913, PLR0917 - what a service gives differs from service to service
    name: str,
    build: Callable[[cfg.ConfigOpts], Service],
    workers: Callable[[cfg.ConfigOpts], int] = lambda _conf: 1,
    flags: Sequence[cfg.Opt] = (),
    check: Callable[[cfg.ConfigOpts], None] = lambda _conf: None,
    collectors: Callable[[cfg.ConfigOpts], Sequence[RunningCollector]] = lambda _conf: (),
) -> None:
    """Run the service ``name`` until SIGTERM. Ends the process with status 0, or 1 if it cannot start.

    On SIGHUP it reads ``[pci]`` again: the whole configuration is checked, and only then is the new section
    in force. All other options need a restart.

    ``check`` looks at what the service depends on before any worker starts. ``collectors``: what its metrics
    have besides what its workers count.
    """
    program = f"portclaim-{name.replace('_', '-')}"
    log_context.set_defaults()
    try:
        conf = config.load(sys.argv[1:], program, flags)
        bus_url(conf)
        never_started = build(conf)  # refuses an invalid configuration once, before any worker starts
        metrics = Metrics(conf, name)
        tracing.check(conf)
        check(conf)
    except PortclaimError as error:
        sys.exit(f"{program}: {error}")
    log.setup(conf, "portclaim")
    log_context.install(conf)
    for explanation in config.explanations(conf):
        LOG.info("%s", explanation)
    for warning in warnings(conf, name):
        LOG.warning("%s", warning)

    def observe() -> None:
        """In a worker: what others see of it."""
        metrics.count_here()
        tracing.begin(conf, name)

    again = _Again(lambda: config.load(sys.argv[1:], program, flags), never_started)
    manager = cotyledon.ServiceManager(graceful_shutdown_timeout=60)
    manager.register_hooks(on_reload=again.note)
    manager.add(_Worker, workers(conf), args=(program, lambda: build(conf), again, observe))
    gc.collect()
    gc.freeze()  # workers share these objects with this process until one is written to
    with metrics.exported(manager, program, lambda: collectors(again.latest or conf)):
        manager.run()
