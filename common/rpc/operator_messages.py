"""Messages of operators: forced releases, drains, retries; lists of hosts, queues and steps."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from portclaim.common.rpc.agent_messages import StepAction
from portclaim.common.rpc.fields import Address, Host, Message, Text, Uuid

Who = Annotated[Text, Field(min_length=1, max_length=255, description="The person who orders it.")]
Reason = Annotated[Text, Field(min_length=1, max_length=1000)]
Limit = Annotated[int, Field(ge=1, le=100_000)]


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
    limit: Limit = Field(default=10_000, description="The most claims to answer.")


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


class HostFilter(Message):
    """Which hosts to list."""

    host: Host | None = Field(default=None, description="Only this host. Null: all.")
    limit: Limit = Field(default=10_000, description="The most hosts to answer.")


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


class Hosts(Message):
    """A list of hosts."""

    hosts: list[HostSummary] = Field(description="Ordered by name.")
    more: bool = Field(description="True: there are more hosts than `limit`.")


class StepFilter(Message):
    """Which unanswered steps to list."""

    host: Host | None = Field(default=None, description="Only steps for this host. Null: all.")
    parked: bool = Field(default=False, description="True: only parked steps.")
    limit: Limit = Field(default=10_000, description="The most steps to answer.")


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


class Retry(Message):
    """Send unanswered steps now."""

    claim_ids: Annotated[list[Uuid], Field(min_length=1, max_length=10_000)] | None = Field(
        default=None, description="Only steps of these claims. Null: all parked steps."
    )
    host: Host | None = Field(default=None, description="Only steps for this host. Null: all.")


class Retried(Message):
    """The answer to a retry."""

    steps: int = Field(description="How many steps are sent now.")
