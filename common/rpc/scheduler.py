"""Call the scheduler, as an API layer does: claim, release, look up, explain."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from portclaim.common.rpc.claim_messages import (
    Claim,
    ClaimId,
    ClaimRequest,
    DeviceFilter,
    Devices,
    ExplainRequest,
    Explanation,
)
from portclaim.common.rpc.client import Client
from portclaim.common.rpc.move_messages import Move, MoveRequest
from portclaim.common.rpc.operator_messages import (
    AwaitedSteps,
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


class SchedulerClient(Client):
    """Any scheduler worker answers."""

    topic = "scheduler"

    def claim(self, request: ClaimRequest) -> Claim:
        """Reserve devices for an instance: all of them on one host, or none.

        Answers as soon as they are reserved (``claimed``); they are attached after that. With ``wait`` a
        claim that cannot be served now, or is not the first that wants this, is ``waiting``: look it up, or
        call again, to see what becomes of it; release it to wait no more.
        Raises ``ClaimRefused`` with its explanation, ``ClaimConflict``, ``InvalidRequest``.
        """
        return self._call("claim", request, Claim)

    def release(self, claim_id: UUID) -> Claim:
        """Give a claim's devices back, whatever its status. Raises ``ClaimNotFound``.

        Answers with the claim ``releasing``; its devices are free once its agent has detached them.
        One that waited for them is ``released`` at once. A claim that has ended is answered as it is.
        """
        return self._call("release", ClaimId(claim_id=claim_id), Claim)

    def force_release(self, claim_id: UUID, who: str, reason: str) -> Claim:
        """End a claim unasked: its host is silent and will not come back. Who says so, and why, is recorded.

        Its instance may run on, devices and all, where nobody can see it. No device is offered before its
        host has come back and taken it from the instance. Raises ``ClaimNotFound``; ``HostIsAlive``, or
        ``InvalidRequest`` for a claim that waits, and then nothing has changed. A claim that has ended is
        answered as it is.
        """
        return self._call("force_release", ForcedRelease(claim_id=claim_id, who=who, reason=reason), Claim)

    def move(self, request: MoveRequest) -> Move:
        """Claim on another host for the same instance, which keeps its devices where it is meanwhile.

        Answers as soon as they are reserved; then :meth:`complete_move` or :meth:`revert_move`. The same
        ``claim_id`` with the same request answers with the same move. Raises what :meth:`claim` does;
        ``ClaimNotFound``; ``MoveConflict`` if the source is not allocated, or is being moved.
        """
        return self._call("move", request, Move)

    def complete_move(self, claim_id: UUID) -> Move:
        """Release the source of the move to ``claim_id``, at once or as soon as that claim is allocated.

        A move that is completed is answered as it is. Raises ``MoveNotFound``; ``MoveConflict`` if it was
        reverted.
        """
        return self._call("complete_move", ClaimId(claim_id=claim_id), Move)

    def revert_move(self, claim_id: UUID) -> Move:
        """Release ``claim_id`` again; the source of the move to it stays as it is.

        A move that is reverted is answered as it is. Raises ``MoveNotFound``; ``MoveConflict`` if it is
        completed.
        """
        return self._call("revert_move", ClaimId(claim_id=claim_id), Move)

    def show(self, claim_id: UUID) -> Claim:
        """Look a claim up. Raises ``ClaimNotFound``."""
        return self._call("show", ClaimId(claim_id=claim_id), Claim)

    def waiting(self, wanted: WaitingFilter) -> WaitingClaims:
        """List the claims that wait, those that came first before the others."""
        return self._call("waiting", wanted, WaitingClaims)

    def explain(self, request: ExplainRequest) -> Explanation:
        """Say whether a claim would be served now, and why not. Reserves nothing."""
        return self._call("explain", request, Explanation)

    def devices(self, wanted: DeviceFilter) -> Devices:
        """List devices as operators see them."""
        return self._call("devices", wanted, Devices)

    def hosts(self, wanted: HostFilter) -> Hosts:
        """List hosts: whether they take claims, and what they have free and held."""
        return self._call("hosts", wanted, Hosts)

    def drain(self, host: str, reason: str, address: str | None = None) -> int:
        """Give a host, or its port at ``address``, no new claims; answers how many live claims stay there.

        Raises ``UnknownHost``, ``InvalidRequest`` if the host has no such port.
        """
        wanted = Drain(host=host, address=address, reason=reason)
        return self._call("drain", wanted, LiveClaims).live_claims

    def undrain(self, host: str, address: str | None = None) -> int:
        """Let a host, or its port, have claims again. Answers and raises what :meth:`drain` does."""
        return self._call("drain", Drain(host=host, address=address), LiveClaims).live_claims

    def remove_host(self, host: str, who: str, reason: str, *, force: bool = False) -> int:
        """Take a silent host out for good: its devices are removed, and it stays drained if it comes back.

        ``force`` ends its live claims as :meth:`force_release` does; answers how many those were. Raises
        ``UnknownHost``, ``HostIsAlive``, and without ``force`` ``HostInUse``; then nothing has changed.
        """
        wanted = Removal(host=host, who=who, reason=reason, force=force)
        return self._call("remove_host", wanted, LiveClaims).live_claims

    def awaited_steps(self, wanted: StepFilter) -> AwaitedSteps:
        """List the steps that agents have not answered."""
        return self._call("awaited_steps", wanted, AwaitedSteps)

    def retry(self, claim_ids: Collection[UUID] | None = None, host: str | None = None) -> int:
        """Have the awaited steps of these claims sent now, or all that are parked; answers how many."""
        wanted = Retry(claim_ids=None if claim_ids is None else list(claim_ids), host=host)
        return self._call("retry", wanted, Retried).steps
