"""What operators tell the scheduler: claims to end by force, hosts to take out of use, steps to retry;
and what they see: who waits for devices, and what waits for an agent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from portclaim.common.rpc.fields import Address, Host, Message, Text, Uuid

Who = Annotated[Text, Field(min_length=1, max_length=255)]
Reason = Annotated[Text, Field(min_length=1, max_length=1000)]


class ForcedRelease(Message):
    """Which claim, who says that its host will not come back, and how that is known."""

    claim_id: Uuid
    who: Who
    reason: Reason


class Drain(Message):
    """Give a host, or its port at ``address``, no new claims, and why not; no reason: claims again."""

    host: Host
    address: Address | None = None
    reason: Reason | None = None


class Removal(Message):
    """Take a host out for good, who says so and why; with ``force`` its live claims end unasked."""

    host: Host
    who: Who
    reason: Reason
    force: bool = False


class LiveClaims(Message):
    """How many live claims there are, or were."""

    live_claims: int


class WaitingFilter(Message):
    """Which waiting claims to list. If there are more than ``limit``, those that have waited longest."""

    claim_id: Uuid | None = None
    limit: Annotated[int, Field(ge=1, le=100_000)] = 10_000


class WaitingClaim(Message):
    """A claim in a queue (view ``waiting``). Times are in seconds.

    ``position`` is 1 for the head of the queue. Only this claim gets devices of ``reserved_ports``.
    """

    claim_id: Uuid
    instance_id: Uuid
    position: int
    alias: str | None
    requests: dict[str, Any]
    waited: float
    expires_in: float
    reserved_host: str | None
    reserved_ports: list[str]


class WaitingClaims(Message):
    """Waiting claims, those that have waited longest first. ``more``: there are more than ``limit``."""

    claims: list[WaitingClaim]
    more: bool


class HostFilter(Message):
    """Which hosts to list; None means all. Of more than ``limit``, the first are answered."""

    host: Host | None = None
    limit: Annotated[int, Field(ge=1, le=100_000)] = 10_000


class HostSummary(Message):
    """A host as operators see it (view ``hosts``).

    ``agent_silent_for`` are seconds; a host that ``is_silent`` gets no claims, whatever is ``available``.
    ``drained_ports`` are addresses with the reason of each.
    """

    host: str
    agent_silent_for: float
    is_silent: bool
    drained_reason: str | None
    drained_ports: dict[str, str]
    devices: int
    available: int
    pfs_available: int
    pfs_held: int
    vfs_available: int
    vfs_held: int
    live_claims: int


class Hosts(Message):
    """Hosts by name; ``more``: there were more than asked for."""

    hosts: list[HostSummary]
    more: bool


class StepFilter(Message):
    """Which awaited steps to list; of more than ``limit``, those that have waited longest."""

    host: Host | None = None
    parked: bool = False
    limit: Annotated[int, Field(ge=1, le=100_000)] = 10_000


class AwaitedStep(Message):
    """A step that its agent has not answered (view ``awaited_steps``); times are seconds."""

    host: str
    claim_id: Uuid
    instance_id: Uuid
    step: int
    action: Literal["attach", "detach"]
    parked: bool
    times_sent: int
    awaited_for: float
    agent_silent_for: float
    last_failure: str | None


class AwaitedSteps(Message):
    """The longest awaited first; ``more``: there were more than asked for."""

    steps: list[AwaitedStep]
    more: bool


class Retry(Message):
    """Send the steps of these claims now; without any, those that are parked. ``host``: only its own."""

    claim_ids: Annotated[list[Uuid], Field(min_length=1, max_length=10_000)] | None = None
    host: Host | None = None


class Retried(Message):
    """How many steps are sent."""

    steps: int
