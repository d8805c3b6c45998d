"""The conductor as something that starts and stops."""

from __future__ import annotations

import sqlalchemy as sa
from oslo_config import cfg

from common.db.transaction import connect, in_transaction
from common.errors import InvalidConfiguration
from common.rpc.compute_agent import ComputeAgentClient
from common.rpc.conductor import ConductorClient
from common.rpc.endpoint import Endpoint, exposed, finish, server
from common.rpc.messages import (
    Holdings,
    HoldingsRequest,
    InventoryAnswer,
    InventoryReport,
    Step,
    StepResult,
)
from common.rpc.transport import transport
from services.conductor import inventory, lifecycle
from services.conductor.relay import Relay


class ConductorEndpoint(Endpoint):
    """What agents call; see :class:`common.rpc.conductor.ConductorClient`."""

    def __init__(self, engine: sa.Engine, agent_down_after: float) -> None:
        self._engine = engine
        self._agent_down_after = agent_down_after

    @exposed(InventoryReport)
    def report_inventory(self, report: InventoryReport) -> InventoryAnswer:
        return in_transaction(self._engine, lambda c: inventory.apply(c, report, self._agent_down_after))

    @exposed(StepResult)
    def step_done(self, result: StepResult) -> None:
        lifecycle.step_done(self._engine, result)

    @exposed(HoldingsRequest)
    def holdings(self, request: HoldingsRequest) -> Holdings:
        return in_transaction(self._engine, lambda c: lifecycle.holdings(c, request))


class Conductor:
    """One worker: answers agents, and sends unanswered steps again."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        if not conf.database.connection:
            raise InvalidConfiguration("[database] connection is not set: the conductor needs the database")
        self._conf = conf

    def start(self) -> None:
        conf = self._conf
        self._bus = transport(conf)
        # One connection for each message in hand and one for the relay.
        self._engine = connect(conf.database.connection, conf.rpc.threads + 1)
        endpoint = ConductorEndpoint(self._engine, conf.conductor.agent_down_after)
        self._server = server(self._bus, ConductorClient.topic, conf.host, endpoint)
        resend_after = conf.conductor.resend_after
        self._relay = Relay(self._engine, self._send, resend_after, pause=resend_after / 5)
        self._server.start(override_pool_size=self._conf.rpc.threads)
        self._relay.start()

    def stop(self) -> None:
        finish(self._server)
        self._relay.end()
        self._bus.cleanup()
        self._engine.dispose()

    def _send(self, host: str, step: Step) -> None:
        ComputeAgentClient(self._bus, self._conf, server=host).send(step)
