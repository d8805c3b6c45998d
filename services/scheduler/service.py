"""The scheduler as something that starts and stops."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import sqlalchemy as sa
from oslo_config import cfg

from common.db import outbox
from common.db.transaction import connect, in_transaction
from common.errors import InvalidConfiguration, InvalidRequest, PortclaimError
from common.pci.alias import Aliases
from common.pci.errors import PciError
from common.pci.extra_specs import requests_from_extra_specs
from common.pci.request import NumaPolicy, PciRequest
from common.rpc.compute_agent import ComputeAgentClient
from common.rpc.endpoint import Endpoint, exposed, finish, server
from common.rpc.messages import (
    Claim,
    ClaimId,
    ClaimRequest,
    DeviceFilter,
    Devices,
    ExplainRequest,
    Explanation,
    Step,
    StepDevice,
)
from common.rpc.operator_messages import (
    AwaitedSteps,
    Drain,
    ForcedRelease,
    LiveClaims,
    Removal,
    Retried,
    Retry,
    StepFilter,
)
from common.rpc.scheduler import SchedulerClient
from common.rpc.transport import transport
from services.scheduler import lookups, maintenance, packing
from services.scheduler.claims import ClaimEngine
from services.scheduler.fleet import Wanted

LOG = logging.getLogger(__name__)

MAX_REQUESTS = 16
"""Of one claim: exact matching looks at every subset of them."""

_AWAITED: dict[str, Literal["attach", "detach"]] = {"claimed": "attach", "releasing": "detach"}
_STEP_FIELDS = set(StepDevice.model_fields)


class SchedulerEndpoint(Endpoint):
    """What an API layer calls; see :class:`common.rpc.scheduler.SchedulerClient`."""

    def __init__(
        self,
        engine: sa.Engine,
        claims: ClaimEngine,
        aliases: Aliases,
        send: Callable[[str, Step], None],
        agent_down_after: float,
    ) -> None:
        self._agent_down_after = agent_down_after
        self._engine = engine
        self._claims = claims
        self._aliases = aliases
        self._send = send

    @exposed(ClaimRequest)
    def claim(self, request: ClaimRequest) -> Claim:
        made = self._claims.claim(request, self._wanted(request))
        self._cast(made)
        return made

    @exposed(ClaimId)
    def release(self, which: ClaimId) -> Claim:
        released = self._claims.release(which.claim_id)
        self._cast(released)
        return released

    @exposed(ForcedRelease)
    def force_release(self, which: ForcedRelease) -> Claim:
        cause = maintenance.forced(which.who, which.reason)
        ended = self._claims.force_release(which.claim_id, cause)
        LOG.warning("claim %s is %s: %r", which.claim_id, ended.status, ended.reason)
        return ended

    @exposed(ClaimId)
    def show(self, which: ClaimId) -> Claim:
        return in_transaction(self._engine, lambda c: lookups.claim(c, which.claim_id))

    @exposed(ExplainRequest)
    def explain(self, request: ExplainRequest) -> Explanation:
        return self._claims.explain(self._wanted(request))

    @exposed(DeviceFilter)
    def devices(self, wanted: DeviceFilter) -> Devices:
        return in_transaction(self._engine, lambda c: lookups.devices(c, wanted))

    @exposed(Drain)
    def drain(self, wanted: Drain) -> LiveClaims:
        return in_transaction(self._engine, lambda c: maintenance.drain(c, wanted))

    @exposed(Removal)
    def remove_host(self, wanted: Removal) -> LiveClaims:
        return in_transaction(
            self._engine, lambda c: maintenance.remove_host(c, wanted, self._agent_down_after)
        )

    @exposed(StepFilter)
    def awaited_steps(self, wanted: StepFilter) -> AwaitedSteps:
        return in_transaction(self._engine, lambda c: lookups.awaited_steps(c, wanted))

    @exposed(Retry)
    def retry(self, which: Retry) -> Retried:
        return in_transaction(
            self._engine, lambda c: Retried(steps=outbox.retry(c, which.claim_ids, which.host))
        )

    def _wanted(self, request: ClaimRequest | ExplainRequest) -> Wanted:
        wish = requests_from_extra_specs(request.extra_specs, self._aliases)
        requests = wish.requests + tuple(
            PciRequest(more.count, tuple(more.spec), numa_policy=NumaPolicy(more.numa_policy))
            for more in request.requests
        )
        if not requests:
            raise InvalidRequest("no device is asked for: neither pci_passthrough:alias nor requests")
        if len(requests) > MAX_REQUESTS:
            raise InvalidRequest(f"{len(requests)} requests in one claim; at most {MAX_REQUESTS} are matched")
        return Wanted(
            requests,
            wish.group_policy,
            None if request.hosts is None else tuple(request.hosts),
            tuple(request.avoid_hosts),
            frozenset(request.numa_cells),
        )

    def _cast(self, claim: Claim) -> None:
        """Send the step that the claim waits for. If that fails, the relay sends it later."""
        action = _AWAITED.get(claim.status)
        if action is None:
            return
        step = Step(
            claim_id=claim.claim_id,
            step=claim.step,
            action=action,
            instance_id=claim.instance_id,
            devices=[StepDevice(**device.model_dump(include=_STEP_FIELDS)) for device in claim.devices],
        )
        try:
            self._send(claim.host, step)
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
        self._packing = packing.load(conf.scheduler.packing)
        self._conf = conf
        self._is_listening = False

    def start(self) -> None:
        conf = self._conf
        self._bus = transport(conf)
        self._agents = ComputeAgentClient(self._bus, conf)
        self._engine = connect(conf.database.connection, conf.rpc.threads)
        claims = ClaimEngine(
            self._engine,
            self._packing,
            resend_after=conf.conductor.resend_after,
            patience=conf.rpc.timeout,
            agent_down_after=conf.conductor.agent_down_after,
        )
        endpoint = SchedulerEndpoint(
            self._engine, claims, self._aliases, self._send, conf.conductor.agent_down_after
        )
        self._server = server(self._bus, SchedulerClient.topic, self._conf.host, endpoint)
        self._server.start(override_pool_size=self._conf.rpc.threads)
        self._is_listening = True

    def stop(self) -> None:
        if not self._is_listening:  # it waits for the broker, and has nothing in hand
            return
        finish(self._server)
        self._bus.cleanup()
        self._engine.dispose()

    def _send(self, host: str, step: Step) -> None:
        self._agents.at(host).send(step)
