"""The endpoint of the scheduler: what callers can have it do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from portclaim.common.db.audit import Order
from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import PortclaimError
from portclaim.common.pci.alias import Aliases
from portclaim.common.rpc.agent_messages import Renewed
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
from portclaim.common.rpc.endpoint import Endpoint, exposed
from portclaim.common.rpc.fields import Nothing
from portclaim.common.rpc.history_messages import History, HistoryFilter
from portclaim.common.rpc.move_messages import EndOfMove, Move, MoveRequest
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
    Renewal,
    Retried,
    Retry,
    StepFilter,
    WaitingClaims,
    WaitingFilter,
)
from portclaim.common.rpc.recovery_messages import Recovery
from portclaim.common.rpc.refusal_messages import RefusalFilter, Refusals
from portclaim.common.rpc.summary_messages import FleetSummary
from portclaim.services.scheduler import (
    alias_counts,
    claim_outcomes,
    history,
    lookups,
    maintenance,
    moves,
    recovery,
    summary,
)
from portclaim.services.scheduler.batches import ClaimBatches
from portclaim.services.scheduler.candidates import CandidateSearch
from portclaim.services.scheduler.claims import ClaimEngine
from portclaim.services.scheduler.grouped import GroupedClaims
from portclaim.services.scheduler.refusal_counts import RefusalCounts
from portclaim.services.scheduler.requirements import requirements_of

LOG = logging.getLogger(__name__)


class Agents(NamedTuple):
    """The agents of the hosts: send them the steps of claims; renew a device at an address of a host."""

    dispatch: Callable[[Sequence[Claim]], None]
    renew: Callable[[str, str], bool]


class SchedulerEndpoint(Endpoint):
    """What an API layer calls; see :class:`portclaim.common.rpc.scheduler.SchedulerClient`."""

    def __init__(
        self,
        engine: sa.Engine,
        claims: ClaimEngine,
        aliases: Aliases,
        agents: Agents,
        agent_down_after: float,
    ) -> None:
        self.refusal_counts = RefusalCounts(engine)
        self._agent_down_after = agent_down_after
        self._engine = engine
        self._claims = claims
        self._candidates = CandidateSearch(engine, claims.packing, agent_down_after)
        self._agents = agents
        self._dispatch = agents.dispatch
        self.take(aliases)

    def take(self, aliases: Aliases) -> None:
        """Use these aliases from now on."""
        self._batches = ClaimBatches(self._engine, self._claims, aliases)
        self._grouped = GroupedClaims(self._claims, self._batches)
        self._aliases = aliases

    @exposed(ClaimRequest)
    def claim(self, request: ClaimRequest) -> Claim:
        with self.refusal_counts.counted(request, self._aliases):
            made = claim_outcomes.counted(
                lambda: self._grouped.claim(request, requirements_of(request, self._aliases))
            )
        self._dispatch([made])
        return made

    @exposed(ClaimBatch)
    def claim_many(self, batch: ClaimBatch) -> Outcomes:
        results = self._batches.claim(batch.claims)
        for request, result in zip(batch.claims, results, strict=True):
            if isinstance(result, PortclaimError):
                self.refusal_counts.count(result, request, self._aliases)
        return self._dispatched(results)

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
        with self.refusal_counts.counted(target, self._aliases):
            requirements = requirements_of(target, self._aliases)
            begun = self._claims.move(request, target, requirements)
        self._dispatch([begun.target])
        return begun

    @exposed(EndOfMove)
    def complete_move(self, to: EndOfMove) -> Move:
        completed = self._claims.complete_move(to.claim_id, Order(to.who, to.reason))
        self._dispatch([completed.source])
        return completed

    @exposed(EndOfMove)
    def revert_move(self, to: EndOfMove) -> Move:
        reverted = self._claims.revert_move(to.claim_id, Order(to.who, to.reason))
        self._dispatch([reverted.target])
        return reverted

    @exposed(ForcedRelease)
    def force_release(self, which: ForcedRelease) -> Claim:
        ended = self._claims.force_release(which.claim_id, which.who, which.reason)
        LOG.warning("claim %s is %s: %r", which.claim_id, ended.status, ended.reason)
        return ended

    @exposed(Recovery)
    def recover(self, wanted: Recovery) -> Claim:
        recovered = in_transaction(self._engine, lambda c: recovery.recover(c, wanted))
        LOG.warning("claim %s of host %s is recovered for %s", recovered.claim_id, wanted.host, wanted.who)
        return recovered

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

    @exposed(RefusalFilter)
    def refusals(self, wanted: RefusalFilter) -> Refusals:
        return in_transaction(self._engine, lambda c: lookups.refusals(c, wanted))

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

    @exposed(Renewal)
    def renew_device(self, wanted: Renewal) -> Renewed:
        in_transaction(
            self._engine, lambda c: maintenance.check_agent(c, wanted.host, self._agent_down_after)
        )
        renewed = self._agents.renew(wanted.host, wanted.address)
        # After the act: if this fails, the caller repeats the call, and the agent has nothing more to do.
        in_transaction(self._engine, lambda c: maintenance.record_renewal(c, wanted))
        return Renewed(renewed=renewed)

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
