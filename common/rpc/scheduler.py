"""Call the scheduler, as an API layer does: claim, release, look up, explain."""

from __future__ import annotations

from uuid import UUID

from common.rpc.client import Client
from common.rpc.messages import (
    Claim,
    ClaimId,
    ClaimRequest,
    DeviceFilter,
    Devices,
    ExplainRequest,
    Explanation,
    ForcedRelease,
)


class SchedulerClient(Client):
    """Any scheduler worker answers."""

    topic = "scheduler"

    def claim(self, request: ClaimRequest) -> Claim:
        """Reserve devices for an instance: all of them on one host, or none.

        Answers as soon as they are reserved (``claimed``); they are attached after that.
        Raises ``ClaimRefused`` with its explanation, ``ClaimConflict``, ``InvalidRequest``.
        """
        return self._call("claim", request, Claim)

    def release(self, claim_id: UUID) -> Claim:
        """Give a claim's devices back, whatever its status. Raises ``ClaimNotFound``.

        Answers with the claim ``releasing``; its devices are free once its agent has detached them.
        A claim that has ended is answered as it is.
        """
        return self._call("release", ClaimId(claim_id=claim_id), Claim)

    def force_release(self, claim_id: UUID, who: str, reason: str) -> Claim:
        """End a claim unasked: its host is silent and will not come back. Who says so, and why, is recorded.

        Its instance may run on, devices and all, where nobody can see it. No device is offered before its
        host has come back and taken it from the instance. Raises ``ClaimNotFound``; ``HostIsAlive``, and
        then nothing has changed. A claim that has ended is answered as it is.
        """
        return self._call("force_release", ForcedRelease(claim_id=claim_id, who=who, reason=reason), Claim)

    def show(self, claim_id: UUID) -> Claim:
        """Look a claim up. Raises ``ClaimNotFound``."""
        return self._call("show", ClaimId(claim_id=claim_id), Claim)

    def explain(self, request: ExplainRequest) -> Explanation:
        """Say whether a claim would be served now, and why not. Reserves nothing."""
        return self._call("explain", request, Explanation)

    def devices(self, wanted: DeviceFilter) -> Devices:
        """List devices as operators see them."""
        return self._call("devices", wanted, Devices)
