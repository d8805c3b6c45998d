"""The scheduler service: its endpoint, and how a worker starts and stops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import sqlalchemy as sa
from oslo_config import cfg

from portclaim.common.db.listener import NotificationListener
from portclaim.common.db.transaction import connect, in_transaction
from portclaim.common.errors import InvalidConfiguration, PortclaimError
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.errors import PciError
from portclaim.common.periodic import Periodic
from portclaim.common.rpc.agent_messages import Step
from portclaim.common.rpc.alias_messages import Aliases as AliasList
from portclaim.common.rpc.batch_messages import ClaimBatch, Outcomes, ReleaseBatch
from portclaim.common.rpc.candidate_messages import Candidates, CandidatesRequest
from portclaim.common.rpc.claim_messages import (
    Claim,
    ClaimId,
    ClaimRequest,
    DeviceFilter,
    Devices,
    ExplainRequest,
    Explanation,
)
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.endpoint import Endpoint, exposed, finish, server
from portclaim.common.rpc.fields import Nothing
from portclaim.common.rpc.history_messages import History, HistoryFilter
from portclaim.common.rpc.move_messages import Move, MoveRequest
from portclaim.common.rpc.operator_messages import (
    AwaitedSteps,
    ClaimFilter,
    Claims,
    Drain,
    ForcedRelease,
    HostFilter,
    Hosts,
    LiveClaims,
    Removal,
    Retried,
    Retry,
    StepFilter,
    WaitingClaims,
    WaitingFilter,
)
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.summary_messages import FleetSummary
from portclaim.common.rpc.transport import transport
from portclaim.services.scheduler import (
    alias_counts,
    changed_aliases,
    history,
    lookups,
    maintenance,
    moves,
    packing,
    queues,
    summary,
)
from portclaim.services.scheduler.batches import ClaimBatches
from portclaim.services.scheduler.candidates import CandidateSearch
from portclaim.services.scheduler.claims import ClaimEngine
from portclaim.services.scheduler.dispatch import Dispatcher
from portclaim.services.scheduler.grouped import GroupedClaims
from portclaim.services.scheduler.queues import WaitingQueues
from portclaim.services.scheduler.requirements import requirements_of

LOG = logging.getLogger(__name__)


class SchedulerEndpoint(Endpoint):
    """What an API layer calls; see :class:`portclaim.common.rpc.scheduler.SchedulerClient`."""

    def __init__(
        self,
        engine: sa.Engine,
        claims: ClaimEngine,
        aliases: Aliases,
        dispatch: Callable[[Sequence[Claim]], None],
        agent_down_after: float,
    ) -> None:
        self._agent_down_after = agent_down_after
        self._engine = engine
        self._claims = claims
        self._candidates = CandidateSearch(engine, claims.packing, agent_down_after)
        self._dispatch = dispatch
        self.take(aliases)

    def take(self, aliases: Aliases) -> None:
        """Use these aliases from now on."""
        self._batches = ClaimBatches(self._engine, self._claims, aliases)
        self._grouped = GroupedClaims(self._claims, self._batches)
        self._aliases = aliases

    @exposed(ClaimRequest)
    def claim(self, request: ClaimRequest) -> Claim:
        made = self._grouped.claim(request, requirements_of(request, self._aliases))
        self._dispatch([made])
        return made

    @exposed(ClaimBatch)
    def claim_many(self, batch: ClaimBatch) -> Outcomes:
        return self._dispatched(self._batches.claim(batch.claims))

    @exposed(ReleaseBatch)
    def release_many(self, batch: ReleaseBatch) -> Outcomes:
        return self._dispatched(self._batches.release(batch.claim_ids))

    @exposed(ClaimId)
    def attach(self, which: ClaimId) -> Claim:
        called = self._claims.attach(which.claim_id)
        self._dispatch([called])
        return called

    @exposed(ClaimId)
    def release(self, which: ClaimId) -> Claim:
        released = self._grouped.release(which.claim_id)
        self._dispatch([released])
        return released

    @exposed(MoveRequest)
    def move(self, request: MoveRequest) -> Move:
        target = in_transaction(self._engine, lambda c: moves.target(c, request))
        requirements = requirements_of(target, self._aliases)
        begun = self._claims.move(request.source_claim_id, target, requirements, live=request.live)
        self._dispatch([begun.target])
        return begun

    @exposed(ClaimId)
    def complete_move(self, to: ClaimId) -> Move:
        completed = self._claims.complete_move(to.claim_id)
        self._dispatch([completed.source])
        return completed

    @exposed(ClaimId)
    def revert_move(self, to: ClaimId) -> Move:
        reverted = self._claims.revert_move(to.claim_id)
        self._dispatch([reverted.target])
        return reverted

    @exposed(ForcedRelease)
    def force_release(self, which: ForcedRelease) -> Claim:
        ended = self._claims.force_release(which.claim_id, which.who, which.reason)
        LOG.warning("claim %s is %s: %r", which.claim_id, ended.status, ended.reason)
        return ended

    @exposed(ClaimId)
    def show(self, which: ClaimId) -> Claim:
        return in_transaction(self._engine, lambda c: lookups.claim(c, which.claim_id))

    @exposed(Nothing)
    def aliases(self, _nothing: Nothing) -> AliasList:
        return in_transaction(
            self._engine, lambda c: alias_counts.summaries(c, self._aliases, self._agent_down_after)
        )

    @exposed(ExplainRequest)
    def explain(self, request: ExplainRequest) -> Explanation:
        return self._claims.explain(request, requirements_of(request, self._aliases))

    @exposed(CandidatesRequest)
    def candidates(self, request: CandidatesRequest) -> Candidates:
        return self._candidates.find(request, requirements_of(request, self._aliases))

    @exposed(ClaimFilter)
    def claims(self, wanted: ClaimFilter) -> Claims:
        return in_transaction(self._engine, lambda c: lookups.claims(c, wanted))

    @exposed(WaitingFilter)
    def waiting(self, wanted: WaitingFilter) -> WaitingClaims:
        return in_transaction(self._engine, lambda c: lookups.waiting(c, wanted))

    @exposed(DeviceFilter)
    def devices(self, wanted: DeviceFilter) -> Devices:
        return in_transaction(self._engine, lambda c: lookups.devices(c, wanted))

    @exposed(HostFilter)
    def hosts(self, wanted: HostFilter) -> Hosts:
        return in_transaction(self._engine, lambda c: lookups.hosts(c, wanted, self._agent_down_after))

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

    @exposed(HistoryFilter)
    def history(self, wanted: HistoryFilter) -> History:
        return in_transaction(self._engine, lambda c: history.history(c, wanted, self._agent_down_after))

    @exposed(Nothing)
    def summary(self, _nothing: Nothing) -> FleetSummary:
        return in_transaction(self._engine, lambda c: summary.summary(c, self._agent_down_after))

    @exposed(Retry)
    def retry(self, which: Retry) -> Retried:
        return in_transaction(self._engine, lambda c: maintenance.retry(c, which))

    def _dispatched(self, results: list[Claim | PortclaimError]) -> Outcomes:
        """The results, after the steps of the claims were sent."""
        self._dispatch([result for result in results if isinstance(result, Claim)])
        return Outcomes.of(results)


class Scheduler:
    """One worker: answers callers, and serves the waiting queues."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        if not conf.database.connection:
            raise InvalidConfiguration("[database] connection is not set: the scheduler needs the database")
        self._aliases = aliases_of(conf)
        self._packing = packing.load(conf.scheduler.packing)
        self._conf = conf
        self._is_listening = False

    def start(self) -> None:
        conf = self._conf
        self._bus = transport(conf)
        self._agents = ComputeAgentClient(self._bus, conf)
        # One connection for each message in hand, and one for the queues.
        self._engine = connect(conf.database.connection, conf.rpc.threads + 1)
        claims = ClaimEngine(
            self._engine,
            self._packing,
            resend_after=conf.conductor.resend_after,
            patience=conf.rpc.timeout,
            agent_down_after=conf.conductor.agent_down_after,
        )
        self._dispatcher = Dispatcher(self._send)
        self._endpoint = SchedulerEndpoint(
            self._engine, claims, self._aliases, self._dispatcher.dispatch, conf.conductor.agent_down_after
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
        self._server = server(self._bus, SchedulerClient.topic, self._conf.host, self._endpoint)
        self._dispatcher.start()
        self._server.start(override_pool_size=self._conf.rpc.threads)
        self._is_listening = True
        self._queues.start()
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
        finish(self._server)
        self._listener.end()
        self._queues.end()
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
