"""The client of the scheduler. API layers and the command line use it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from portclaim.common.errors import PortclaimError
from portclaim.common.rpc.agent_messages import Renewed
from portclaim.common.rpc.alias_messages import Aliases
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
from portclaim.common.rpc.operators import OperatorCalls
from portclaim.common.rpc.recovery_messages import Recovery
from portclaim.common.rpc.refusal_messages import RefusalFilter, Refusals
from portclaim.common.rpc.summary_messages import FleetSummary


class SchedulerClient(OperatorCalls):
    """Calls the scheduler. Any of its workers answers. Threads may share a client.

    Every method may raise :class:`~portclaim.ServiceUnavailable`, :class:`~portclaim.ServiceFailed`,
    :class:`~portclaim.InvalidMessage` and :class:`~portclaim.UnsupportedVersion`. After
    :class:`~portclaim.ServiceUnavailable` the same call can be repeated safely.
    """

    topic = "scheduler"

    def claim(self, request: ClaimRequest) -> Claim:
        """Reserve devices for an instance: all of them on one host, or none.

        The claim that is answered is ``claimed``: its devices are reserved, and the host's agent attaches
        them afterwards. If the request has ``wait``, it may be ``waiting`` in a queue instead. Call
        :meth:`show`, or repeat the call, to follow it. Call :meth:`release` to leave the queue.

        Raises :class:`~portclaim.ClaimRefused` if no host can serve the claim,
        :class:`~portclaim.QuotaExceeded`, :class:`~portclaim.ClaimConflict`, and
        :class:`~portclaim.InvalidRequest`, for example for an unknown alias, or if a claim in ``near`` has
        ended.
        """
        return self._call("claim", request, Claim)

    def claim_many(self, requests: Sequence[ClaimRequest]) -> list[Claim | PortclaimError]:
        """Make up to 256 claims in one call. Each is served or refused by itself, in this order.

        Answers for each request its claim, or the error that :meth:`claim` would have raised. Neighbours
        that ask for the same, on any host, cost a fraction of single claims. The call can be repeated like
        :meth:`claim`. Raises :class:`~portclaim.InvalidMessage` if a request is malformed: then none is
        served.
        """
        return self._call("claim_many", ClaimBatch(claims=list(requests)), Outcomes, since="1.1").results()

    def attach(self, claim_id: UUID) -> Claim:
        """Let the agent attach the devices of a claim that was made with ``attach="on-call"``.

        The agent attaches them when they are prepared and the instance is on the host, also if that happens
        later. A claim that waits in a queue gets its devices attached after it was served. A claim that was
        made with ``auto``, that is being released or that has ended does not change. Raises
        :class:`~portclaim.ClaimNotFound`.
        """
        return self._call("attach", ClaimId(claim_id=claim_id), Claim, since="1.1")

    def release(self, claim_id: UUID) -> Claim:
        """Release a claim, whatever its status is.

        The claim that is answered is ``releasing``: its devices are free after the host's agent has detached
        them. A claim that was waiting is ``released`` at once. A claim that has ended does not change. Raises
        :class:`~portclaim.ClaimNotFound`.
        """
        return self._call("release", ClaimId(claim_id=claim_id), Claim)

    def release_many(self, claim_ids: Sequence[UUID]) -> list[Claim | PortclaimError]:
        """Release up to 256 claims in one call.

        Answers each claim as :meth:`release` does, or :class:`~portclaim.ClaimNotFound`.
        """
        return self._call(
            "release_many", ReleaseBatch(claim_ids=list(claim_ids)), Outcomes, since="1.1"
        ).results()

    def force_release(self, claim_id: UUID, who: str, reason: str) -> Claim:
        """End a claim without its agent, because its host is silent and will not come back.

        ``who`` orders it and ``reason`` says why the host will not come back. The claim's history records
        both. The instance may still run with the devices. Therefore no device is offered again before the
        host has come back and its agent has detached the device. A claim that has ended does not change.

        Raises :class:`~portclaim.ClaimNotFound`, :class:`~portclaim.HostIsAlive`, and
        :class:`~portclaim.InvalidRequest` for a claim that waits. After an error nothing has changed.
        """
        wanted = ForcedRelease(claim_id=claim_id, who=who, reason=reason)
        return self._call_as_operator("force_release", wanted, Claim)

    def recover(self, wanted: Recovery) -> Claim:
        """Make a claim anew that an agent has devices for and that the database does not know.

        There are such claims after an old backup was restored;
        :meth:`~portclaim.common.rpc.compute_agent.ComputeAgentClient.unknown_claims` lists them. The claim is
        ``allocated``. The same call again changes nothing. Raises :class:`~portclaim.UnknownHost`, and
        :class:`~portclaim.ClaimConflict` if the claim is known, or another claim has one of its devices.
        """
        return self._call_as_operator("recover", wanted, Claim, since="1.1")

    def move(self, request: MoveRequest) -> Move:
        """Claim devices on another host for the same instance (the target of the move).

        In a cold move, the instance keeps its devices on its present host (the source) until
        :meth:`complete_move`. A live move needs no :meth:`complete_move`: it is completed when the guest has
        the devices of the target. Call :meth:`revert_move` to give up the target. The same ``claim_id`` with
        the same request answers the same move as it is now.

        ``who`` and ``reason`` of the request are for the audit.

        Raises what :meth:`claim` raises, :class:`~portclaim.ClaimNotFound`, and
        :class:`~portclaim.MoveConflict` if the source is not allocated or is already being moved.
        """
        said = {"who": self._said(request.who), "reason": self._said(request.reason)}
        return self._call("move", request.model_copy(update=said), Move)

    def complete_move(self, claim_id: UUID, *, who: str | None = None, reason: str | None = None) -> Move:
        """Release the source of a move as soon as the target ``claim_id`` is allocated.

        A move that is completed does not change. Raises :class:`~portclaim.MoveNotFound`, and
        :class:`~portclaim.MoveConflict` if the move was reverted.
        """
        return self._call("complete_move", self._end_of_move(claim_id, who, reason), Move)

    def revert_move(self, claim_id: UUID, *, who: str | None = None, reason: str | None = None) -> Move:
        """Release the target ``claim_id`` of a move. The instance keeps the devices of the source.

        If the devices of the source were unplugged for a live move, the agent attaches them again. A move
        that is reverted does not change. Raises :class:`~portclaim.MoveNotFound`, and
        :class:`~portclaim.MoveConflict` if the move is completed.
        """
        return self._call("revert_move", self._end_of_move(claim_id, who, reason), Move)

    def show(self, claim_id: UUID) -> Claim:
        """Look up a claim. Raises :class:`~portclaim.ClaimNotFound`."""
        return self._call("show", ClaimId(claim_id=claim_id), Claim)

    def claims(self, wanted: ClaimFilter) -> Claims:
        """List claims, without those that have ended unless their statuses are asked for.

        It lists them page by page: see :func:`~portclaim.pages`. Raises :class:`~portclaim.InvalidRequest`
        for an ``after`` of another list or filter, as every list does.
        """
        return self._call("claims", wanted, Claims, since="1.1")

    def waiting(self, wanted: WaitingFilter) -> WaitingClaims:
        """List the claims that wait in queues, page by page: see :func:`~portclaim.pages`."""
        return self._call("waiting", wanted, WaitingClaims)

    def refusals(self, wanted: RefusalFilter) -> Refusals:
        """List the claims that were refused last, page by page: see :func:`~portclaim.pages`."""
        return self._call("refusals", wanted, Refusals, since="1.1")

    def explain(self, request: ExplainRequest) -> Explanation:
        """Say whether a claim would be served now, and why not. It reserves nothing.

        Raises :class:`~portclaim.InvalidRequest`.
        """
        return self._call("explain", request, Explanation)

    def candidates(self, request: CandidatesRequest) -> Candidates:
        """List the hosts that could serve a claim now, the best first. It reserves nothing and locks nothing.

        The order is the one in which claims would take the hosts, if each claim avoided the hosts before it.
        A claim with ``hosts`` of one candidate gets the devices that the candidate names, unless something
        changes in between. Then it gets other devices of that host, or it is refused.

        If there are more hosts than ``limit``, the answer has ``after``. Give it to the next call. Such calls
        together answer no host twice, whatever changes between them. If nothing changes, they answer every
        candidate, in the order of one long answer. If the fleet changes, they answer every host that is a
        candidate all the time. A host that becomes a candidate meanwhile may be missing, and a host that was
        answered may no longer be a candidate.

        Raises :class:`~portclaim.InvalidRequest`, also for an ``after`` of another request.
        """
        return self._call("candidates", request, Candidates, since="1.1")

    def aliases(self) -> Aliases:
        """List the aliases of the scheduler.

        Answers for each how many devices match, and how many would but for their type.
        """
        return self._call("aliases", Nothing(), Aliases, since="1.1")

    def devices(self, wanted: DeviceFilter) -> Devices:
        """List devices with their effective status, page by page: see :func:`~portclaim.pages`."""
        return self._call("devices", wanted, Devices)

    def hosts(self, wanted: HostFilter) -> Hosts:
        """List hosts: whether they take claims, and how many of their devices are available or held.

        It lists them page by page: see :func:`~portclaim.pages`.
        """
        return self._call("hosts", wanted, Hosts)

    def drain(self, host: str, reason: str, address: str | None = None, *, who: str | None = None) -> int:
        """Stop new claims on a host, or on its port at ``address``.

        ``who`` orders it: the audit keeps that. Answers how many live claims it still has. Raises
        :class:`~portclaim.UnknownHost`, and :class:`~portclaim.InvalidRequest` if it has no such port.
        """
        wanted = Drain(host=host, address=address, reason=reason, who=self._said(who))
        return self._call_as_operator("drain", wanted, LiveClaims).live_claims

    def undrain(
        self, host: str, address: str | None = None, *, who: str | None = None, reason: str | None = None
    ) -> int:
        """Allow new claims again. Answers and raises what :meth:`drain` does."""
        said = {"who": self._said(who), "undrain_reason": self._said(reason)}
        wanted = Drain(host=host, address=address, **said)
        return self._call_as_operator("drain", wanted, LiveClaims).live_claims

    def renew_device(
        self, host: str, address: str, *, who: str | None = None, reason: str | None = None
    ) -> bool:
        """Allow a device of ``one_time_use`` to be handed out again. Answers whether it was used.

        Raises :class:`~portclaim.UnknownHost`, :class:`~portclaim.ServiceUnavailable` if the host's agent is
        silent, and :class:`~portclaim.InvalidRequest` while a claim has the device.
        """
        wanted = Renewal(host=host, address=address, who=who, reason=reason)
        return self._call_as_operator("renew_device", wanted, Renewed, since="1.1").renewed

    def remove_host(self, host: str, who: str, reason: str, *, force: bool = False) -> int:
        """Remove a silent host: its devices are removed. If it comes back, it is drained.

        With ``force`` its live claims end as :meth:`force_release` ends them. Answers how many those were.
        Raises :class:`~portclaim.UnknownHost`, :class:`~portclaim.HostIsAlive`, and without ``force``
        :class:`~portclaim.HostInUse`. After an error nothing has changed.
        """
        wanted = Removal(host=host, who=who, reason=reason, force=force)
        return self._call_as_operator("remove_host", wanted, LiveClaims).live_claims

    def awaited_steps(self, wanted: StepFilter) -> AwaitedSteps:
        """List the steps that agents have not answered, page by page: see :func:`~portclaim.pages`."""
        return self._call("awaited_steps", wanted, AwaitedSteps)

    def history(self, wanted: HistoryFilter) -> History:
        """Show what happened to a claim, a host or a device, and which steps its agent has not answered.

        Raises :class:`~portclaim.ClaimNotFound`, :class:`~portclaim.UnknownHost`, and
        :class:`~portclaim.InvalidRequest` if the host has no such device.
        """
        return self._call("history", wanted, History, since="1.1")

    def summary(self) -> FleetSummary:
        """Say how the fleet is in numbers. It reads the sums of hosts, and no devices."""
        return self._call("summary", Nothing(), FleetSummary, since="1.1")

    def retry(
        self,
        claim_ids: Collection[UUID] | None = None,
        host: str | None = None,
        *,
        who: str | None = None,
        reason: str | None = None,
    ) -> int:
        """Send unanswered steps now: those of these claims, or all parked ones.

        ``host`` limits it to the steps of one host. ``who`` orders it. Answers how many steps are sent.
        """
        ids = None if claim_ids is None else list(claim_ids)
        wanted = Retry(claim_ids=ids, host=host, who=self._said(who), reason=self._said(reason))
        return self._call_as_operator("retry", wanted, Retried).steps

    def _end_of_move(self, claim_id: UUID, who: str | None, reason: str | None) -> EndOfMove:
        return EndOfMove(claim_id=claim_id, who=self._said(who), reason=self._said(reason))
