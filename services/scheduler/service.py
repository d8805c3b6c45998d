"""The scheduler service: how a worker starts and stops."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from oslo_config import cfg

from portclaim.common.db.listener import NotificationListener
from portclaim.common.db.transaction import connect, in_transaction
from portclaim.common.errors import InvalidConfiguration, ServiceUnavailable
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.errors import PciError
from portclaim.common.periodic import Periodic
from portclaim.common.rpc.agent_messages import Step
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.endpoint import finish
from portclaim.common.rpc.transport import transport
from portclaim.common.trust.services_key import ServicesKey
from portclaim.services.scheduler import changed_aliases, packing, queues, refusal_counts
from portclaim.services.scheduler.claims import ClaimEngine
from portclaim.services.scheduler.dispatch import Dispatcher
from portclaim.services.scheduler.endpoint import Agents, SchedulerEndpoint
from portclaim.services.scheduler.queues import WaitingQueues
from portclaim.services.scheduler.servers import start_servers


class Scheduler:
    """One worker: answers callers, and serves the waiting queues."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        if not conf.database.connection:
            raise InvalidConfiguration("[database] connection is not set: the scheduler needs the database")
        self._aliases = aliases_of(conf)
        self._packing = packing.load(conf.scheduler.packing)
        self._conf = conf
        self._services_key = ServicesKey(conf)
        self._is_listening = False

    def start(self) -> None:
        conf = self._conf
        self._bus = transport(conf)
        self._agents = ComputeAgentClient(self._bus, conf, signer=self._services_key.signer())
        # One connection for each message in hand, those of operators too, and one for each periodic task.
        self._engine = connect(conf.database.connection, conf.rpc.threads + 4, conf.database.answer_within)
        claims = ClaimEngine(
            self._engine,
            self._packing,
            resend_after=conf.conductor.resend_after,
            patience=conf.rpc.timeout,
            agent_down_after=conf.conductor.agent_down_after,
        )
        self._dispatcher = Dispatcher(self._send)
        self._endpoint = SchedulerEndpoint(
            self._engine,
            claims,
            self._aliases,
            Agents(self._dispatcher.dispatch, lambda host, address: self._agents.at(host).renew(address)),
            conf.conductor.agent_down_after,
        )
        self._recorder = Periodic(
            "recorder of refusals", self._endpoint.refusal_counts.record, refusal_counts.PAUSE
        )
        self._waiting = WaitingQueues(
            self._engine,
            self._packing,
            self._aliases,
            self._send,
            resend_after=conf.conductor.resend_after,
            agent_down_after=conf.conductor.agent_down_after,
        )
        self._queues = Periodic("waiting queues", self._serve_queues, conf.scheduler.serve_interval)
        self._listener = NotificationListener(self._engine, queues.CHANNEL, self._queues.wake)
        self._dispatcher.start()
        self._servers = start_servers(self._bus, conf, self._endpoint)
        self._is_listening = True
        self._queues.start()
        self._recorder.start()
        self._listener.start()

    def reload(self, conf: cfg.ConfigOpts) -> None:
        """Take the aliases. Claims that wait for one that has changed say so."""
        before, self._aliases = self._aliases, aliases_of(conf)
        if self._is_listening:
            self._endpoint.take(self._aliases)
            self._waiting = replace(self._waiting, aliases=self._aliases)
            in_transaction(self._engine, lambda c: changed_aliases.tell(c, before, self._aliases))
            self._queues.wake()

    def stop(self) -> None:
        if not self._is_listening:  # it still waits for the broker
            return
        finish(*self._servers)
        self._listener.end()
        self._queues.end()
        self._recorder.end()
        with suppress(ServiceUnavailable):
            self._endpoint.refusal_counts.record()
        self._dispatcher.end()
        self._bus.cleanup()
        self._engine.dispose()

    def _serve_queues(self) -> bool:
        return self._waiting.work()

    def _send(self, host: str, steps: Sequence[Step]) -> None:
        self._agents.at(host).send_all(steps)


def aliases_of(conf: cfg.ConfigOpts) -> Aliases:
    """The aliases of ``[pci]``. Raises :class:`InvalidConfiguration`."""
    try:
        return Aliases.parse(conf.pci.alias, by_class=conf.filter_scheduler.pci_in_placement)
    except PciError as error:
        raise InvalidConfiguration(str(error)) from error
