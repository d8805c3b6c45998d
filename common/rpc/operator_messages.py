"""Messages of operators: forced releases, drains, retries; lists of hosts, claims, queues and steps."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from portclaim.common.rpc.agent_messages import StepAction
from portclaim.common.rpc.fields import (
    Address,
    AnsweredClaimStatus,
    ClaimStatus,
    Host,
    Message,
    Project,
    Text,
    Uuid,
)
from portclaim.common.rpc.pages import After, Limit, Next, OlderThan
from portclaim.common.rpc.versions import Since

Who = Annotated[Text, Field(min_length=1, max_length=255, description="The person who orders it.")]
Reason = Annotated[Text, Field(min_length=1, max_length=1000)]


Orderer = Annotated[
    Annotated[Who | None, Field(description="The person who orders it, for the audit. Null: not said.")],
    Since("1.1"),
]
Grounds = Annotated[
    Annotated[Reason | None, Field(description="Why, for the audit. Null: not said.")], Since("1.1")
]


class ForcedRelease(Message):
    """End a claim whose host will not come back."""

    claim_id: Uuid = Field(description="The claim.")
    who: Who
    reason: Reason = Field(description="Why the host will not come back.")


class Drain(Message):
    """Drain or undrain a host, or one of its ports. A drained host or port gets no new claims."""

    host: Host = Field(description="The host.")
    address: Address | None = Field(
        default=None, description="PCI address of the port to drain. Null: the whole host."
    )
    reason: Reason | None = Field(default=None, description="Why it is drained. Null: undrain it.")
    undrain_reason: Annotated[Reason | None, Since("1.1")] = Field(
        default=None, description="Why it is undrained, for the audit. Null: not said."
    )
    who: Orderer = None


class Renewal(Message):
    """Allow a device that was used once to be handed out again."""

    host: Host = Field(description="The host.")
    address: Address = Field(description="PCI address of the device, `dddd:bb:ss.f`.")
    who: Orderer = None
    reason: Grounds = None


class Removal(Message):
    """Remove a host that will not come back."""

    host: Host = Field(description="The host.")
    who: Who
    reason: Reason = Field(description="Why the host is removed.")
    force: bool = Field(default=False, description="End its live claims as a forced release does.")


class LiveClaims(Message):
    """The number of live claims of a host or port."""

    live_claims: int = Field(description="How many live claims it has, or had before it was removed.")


class WaitingFilter(Message):
    """Which waiting claims to list."""

    claim_id: Uuid | None = Field(default=None, description="Only this claim. Null: all.")
    instance_id: Annotated[Uuid | None, Since("1.1")] = Field(
        default=None, description="Only claims of this instance. Null: all."
    )
    host: Annotated[Host | None, Since("1.1")] = Field(
        default=None, description="Only claims for which ports of this host are reserved. Null: all."
    )
    limit: Limit = Field(default=10_000, description="The most claims to answer.")
    after: After = None


class WaitingClaim(Message):
    """A claim in a queue, from the view `waiting`."""

    claim_id: Uuid = Field(description="The claim.")
    instance_id: Uuid = Field(description="Its instance.")
    position: int = Field(description="Its position in its queue. 1: the head of the queue.")
    alias: str | None = Field(description="Its extra spec `pci_passthrough:alias`.")
    requests: dict[str, Any] = Field(
        description="What it asks for. Claims with the same requests form a queue."
    )
    waited: float = Field(description="Seconds since it was queued.")
    expires_in: float = Field(description="Seconds until it expires.")
    reserved_host: str | None = Field(description="Host of its reserved ports. Null: none is reserved.")
    reserved_ports: list[str] = Field(
        description="PCI addresses of its reserved ports. Only this claim gets devices of them."
    )


class WaitingClaims(Message):
    """A list of waiting claims."""

    claims: list[WaitingClaim] = Field(description="Those that have waited longest come first.")
    more: bool = Field(description="True: more claims wait than `limit`.")
    after: Next = None


class HostFilter(Message):
    """Which hosts to list."""

    host: Host | None = Field(default=None, description="Only this host. Null: all.")
    hosts: Annotated[Annotated[list[Host], Field(min_length=1, max_length=1000)] | None, Since("1.1")] = (
        Field(default=None, description="Only these hosts. Null: all.")
    )
    prefix: Annotated[Host | None, Since("1.1")] = Field(
        default=None, description="Only hosts whose names begin with this. Null: all."
    )
    is_silent: Annotated[bool | None, Since("1.1")] = Field(
        default=None, description="Only hosts that have this `is_silent`. Null: all."
    )
    is_drained: Annotated[bool | None, Since("1.1")] = Field(
        default=None, description="True: only drained hosts. False: only others. Null: all."
    )
    limit: Limit = Field(default=10_000, description="The most hosts to answer.")
    after: After = None


class HostSummary(Message):
    """A host as operators see it, from the view `hosts`."""

    host: str = Field(description="Name of the host.")
    agent_silent_for: float = Field(description="Seconds since its agent's last report.")
    is_silent: bool = Field(
        description="True: the agent has been silent for too long, and the host gets no claims."
    )
    drained_reason: str | None = Field(description="Why the host is drained. Null: it is not.")
    drained_ports: dict[str, str] = Field(description="Its drained ports: PCI addresses with the reasons.")
    devices: int = Field(description="Number of devices, without removed ones.")
    available: int = Field(description="Number of devices that can be claimed.")
    pfs_available: int = Field(description="Number of PFs that can be claimed.")
    pfs_held: int = Field(description="Number of PFs that claims hold.")
    vfs_available: int = Field(description="Number of VFs that can be claimed.")
    vfs_held: int = Field(description="Number of VFs that claims hold.")
    live_claims: int = Field(description="Number of claims that hold devices.")
    key_age: float | None = Field(
        default=None, description="Seconds since the host's key was registered. Null: it has no valid key."
    )


class Hosts(Message):
    """A list of hosts."""

    hosts: list[HostSummary] = Field(description="Ordered by name.")
    more: bool = Field(description="True: there are more hosts than `limit`.")
    after: Next = None


class ClaimFilter(Message):
    """Which claims to list. A field that is null excludes no claim.

    Example::

        for claim in scheduler.claims(ClaimFilter(statuses=["releasing"], older_than=600)).claims:
            print(claim.host, claim.claim_id, claim.awaited_step)
    """

    statuses: Annotated[list[ClaimStatus], Field(min_length=1)] | None = Field(
        default=None, description="Only claims with one of these statuses. Null: all that have not ended."
    )
    host: Host | None = Field(default=None, description="Only claims that this host has served.")
    instance_id: Uuid | None = Field(default=None, description="Only claims of this instance.")
    project: Annotated[Project | None, Since("1.1")] = Field(
        default=None, description="Only claims of this project."
    )
    older_than: OlderThan = Field(
        default=None, description="Only claims that were made at least this many seconds ago."
    )
    newer_than: OlderThan = Field(
        default=None, description="Only claims that were made at most this many seconds ago."
    )
    limit: Limit = Field(default=100, description="The most claims to answer.")
    after: After = None


class ListedClaim(Message):
    """A claim in a list."""

    claim_id: Uuid = Field(description="The claim.")
    instance_id: Uuid = Field(description="Its instance.")
    host: str | None = Field(description="The host of its devices. Null: no host has served it.")
    status: AnsweredClaimStatus = Field(description="Its status, as in Claim.")
    reason: str | None = Field(description="Why it failed, expired or was released by force.")
    devices: list[str] = Field(
        description="PCI addresses of the devices that it holds, or held before it ended."
    )
    awaited_step: StepAction | str | None = Field(
        description="The step that its agent has not answered: `prepare`, `attach`, `unplug` or `detach`. "
        "Null: none."
    )
    age: float = Field(description="Seconds since it was made.")
    created_at: str = Field(description="When it was made, ISO 8601.")
    updated_at: str = Field(description="When its status changed last, ISO 8601.")


class Claims(Message):
    """A list of claims."""

    claims: list[ListedClaim] = Field(description="The oldest claims come first.")
    more: bool = Field(description="True: there are more claims than `limit`.")
    after: Next = None


class StepFilter(Message):
    """Which unanswered steps to list."""

    host: Host | None = Field(default=None, description="Only steps for this host. Null: all.")
    parked: bool = Field(default=False, description="True: only parked steps.")
    older_than: OlderThan = Field(
        default=None, description="Only steps that were written at least this many seconds ago. Null: all."
    )
    limit: Limit = Field(default=10_000, description="The most steps to answer.")
    after: After = None


class AwaitedStep(Message):
    """A step that its agent has not answered, from the view `awaited_steps`."""

    host: str = Field(description="The agent's host.")
    claim_id: Uuid = Field(description="The claim.")
    instance_id: Uuid = Field(description="Its instance.")
    step: int = Field(description="Number of the step within its claim.")
    action: StepAction | str = Field(
        description="What the agent must do with the devices: `prepare`, `attach`, `unplug` or `detach`."
    )
    parked: bool = Field(description="True: it is not sent again until an operator retries it.")
    times_sent: int = Field(description="How often it was sent.")
    awaited_for: float = Field(description="Seconds since the step was written.")
    agent_silent_for: float = Field(description="Seconds since the agent's last report.")
    last_failure: str | None = Field(description="Why the agent's last try failed.")


class AwaitedSteps(Message):
    """A list of unanswered steps."""

    steps: list[AwaitedStep] = Field(description="The oldest steps come first.")
    more: bool = Field(description="True: there are more steps than `limit`.")
    after: Next = None


class Retry(Message):
    """Send unanswered steps now."""

    claim_ids: Annotated[list[Uuid], Field(min_length=1, max_length=10_000)] | None = Field(
        default=None, description="Only steps of these claims. Null: all parked steps."
    )
    host: Host | None = Field(default=None, description="Only steps for this host. Null: all.")
    who: Orderer = None
    reason: Grounds = None


class Retried(Message):
    """The answer to a retry."""

    steps: int = Field(description="How many steps are sent now.")
