"""The scheduler as something that starts and stops."""

from __future__ import annotations

import logging
from collections.abc import Callable

import sqlalchemy as sa
from oslo_config import cfg

from common.db import outbox
from common.db.transaction import connect, in_transaction
from common.errors import InvalidConfiguration, InvalidRequest, PortclaimError
from common.pci.alias import Aliases
from common.pci.errors import PciError
from common.pci.extra_specs import requests_from_extra_specs
from common.rpc.compute_agent import ComputeAgentClient
from common.rpc.endpoint import Endpoint, exposed, server
from common.rpc.messages import (
    Claim,
    ClaimId,
    ClaimRequest,
    DeviceFilter,
    Devices,
    ExplainRequest,
    Explanation,
    Step,
)
from common.rpc.scheduler import SchedulerClient
from common.rpc.transport import transport
from services.scheduler import claims, lookups, packing
from services.scheduler.explain import explain
from services.scheduler.fleet import Wanted

LOG = logging.getLogger(__name__)


class SchedulerEndpoint(Endpoint):
    """What an API layer calls; see :class:`common.rpc.scheduler.SchedulerClient`."""

    def __init__(
        self,
        engine: sa.Engine,
        aliases: Aliases,
        settings: claims.Settings,
        send: Callable[[str, Step], None],
    ) -> None:
        self._engine = engine
        self._aliases = aliases
        self._settings = settings
        self._send = send

    @exposed(ClaimRequest)
    def claim(self, request: ClaimRequest) -> Claim:
        wanted = self._wanted(request)

        def work(connection: sa.Connection) -> Claim:
            return claims.claim(connection, request, wanted, self._settings)

        try:
            made = in_transaction(self._engine, work)
        except claims.AnsweredMeanwhile:
            made = in_transaction(self._engine, work)
        self._cast(made)
        return made

    @exposed(ClaimId)
    def release(self, which: ClaimId) -> Claim:
        released = in_transaction(
            self._engine, lambda c: claims.release(c, which.claim_id, self._settings.resend_after)
        )
        self._cast(released)
        return released

    @exposed(ClaimId)
    def show(self, which: ClaimId) -> Claim:
        return in_transaction(self._engine, lambda c: lookups.claim(c, which.claim_id))

    @exposed(ExplainRequest)
    def explain(self, request: ExplainRequest) -> Explanation:
        wanted = self._wanted(request)
        return in_transaction(self._engine, lambda c: explain(c, wanted, self._settings.packing))

    @exposed(DeviceFilter)
    def devices(self, wanted: DeviceFilter) -> Devices:
        return in_transaction(self._engine, lambda c: lookups.devices(c, wanted))

    def _wanted(self, request: ClaimRequest | ExplainRequest) -> Wanted:
        wish = requests_from_extra_specs(request.extra_specs, self._aliases)
        if not wish.requests:
            raise InvalidRequest("the extra specs name no device: pci_passthrough:alias is missing")
        return Wanted(
            wish.requests,
            None if request.hosts is None else tuple(request.hosts),
            tuple(request.avoid_hosts),
        )

    def _cast(self, claim: Claim) -> None:
        """Send the claim's step on its way. The claim stands even if that fails: the relay sends it again."""
        try:
            for host, step in in_transaction(self._engine, lambda c: outbox.read(c, [claim.claim_id])):
                self._send(host, step)
        except PortclaimError as error:
            LOG.warning("step %s of claim %s will be sent later: %s", claim.step, claim.claim_id, error)


class Scheduler:
    """One worker."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        if not conf.database.connection:
            raise InvalidConfiguration("[database] connection is not set: the scheduler needs the database")
        try:
            self._aliases = Aliases.parse(conf.pci.alias)
        except PciError as error:
            raise InvalidConfiguration(str(error)) from error
        self._settings = claims.Settings(
            packing=packing.load(conf.scheduler.packing),
            resend_after=conf.conductor.resend_after,
            patience=conf.rpc.timeout,
        )
        self._conf = conf

    def start(self) -> None:
        self._bus = transport(self._conf)
        self._engine = connect(self._conf.database.connection, self._conf.rpc.threads)
        endpoint = SchedulerEndpoint(self._engine, self._aliases, self._settings, self._send)
        self._server = server(self._bus, SchedulerClient.topic, self._conf.host, endpoint)
        self._server.start(override_pool_size=self._conf.rpc.threads)

    def stop(self) -> None:
        self._server.stop()
        self._server.wait()
        self._bus.cleanup()
        self._engine.dispose()

    def _send(self, host: str, step: Step) -> None:
        ComputeAgentClient(self._bus, self._conf, server=host).send(step)
