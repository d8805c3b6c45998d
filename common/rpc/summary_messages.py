"""The message that says how the fleet is, in numbers."""

from __future__ import annotations

from pydantic import Field

from portclaim.common.rpc.fields import Message
from portclaim.common.rpc.operator_messages import AwaitedStep


class PoolSummary(Message):
    """Devices of the fleet that are alike."""

    dev_type: str = Field(description="`type-PF`, `type-VF` or `type-PCI`.")
    vendor_id: str = Field(description="Hexadecimal.")
    product_id: str = Field(description="Hexadecimal.")
    devices: int = Field(description="How many the fleet has.")
    free: int = Field(description="How many a claim can have now. Those of drained hosts are not counted.")


class SilentHost(Message):
    """A host whose agent does not report."""

    host: str = Field(description="Its name.")
    silent_for: float = Field(description="Seconds since its agent's last report.")


class RefusedClaims(Message):
    """Claims that were refused for the same reason."""

    reason: str = Field(
        description="The first filter that left no device; or `queue`, `quota`, `conflict` or `invalid`."
    )
    alias: str | None = Field(description="The alias that they asked for. Null: none, or several.")
    refused: int = Field(description="How many.")


class RefusedInMinute(Message):
    """Claims that were refused in one minute."""

    minute: str = Field(description="Its beginning, in ISO 8601.")
    refused: dict[str, int] = Field(description="How many, by reason.")


class FleetSummary(Message):
    """How the fleet is. Numbers of devices may be a second old."""

    hosts: int = Field(description="Number of hosts.")
    hosts_drained: int = Field(description="Number of drained hosts.")
    hosts_silent: int = Field(description="Number of silent hosts that are not drained.")
    silent_hosts: list[SilentHost] = Field(
        description="Up to 10 of the silent hosts, those that reported last come first."
    )
    pools: list[PoolSummary] = Field(description="Devices that are alike, those with the most come first.")
    in_progress: dict[str, int] = Field(
        description="Claims that have not come to rest, by status. 10000: so many or more."
    )
    seconds: float = Field(
        description="The time that `changes` are of: a minute, or less if 10,000 changes took less."
    )
    changes: dict[str, int] = Field(
        description="How many claims became claimed, allocated, released, failed and so on in that time."
    )
    steps: int = Field(description="Steps that agents have not answered. 10000: so many or more.")
    steps_parked: int = Field(description="Those of them that are no longer sent. 10000: so many or more.")
    slowest_steps: list[AwaitedStep] = Field(description="Up to 5 of them, the oldest first.")
    refused: list[RefusedClaims] = Field(
        description="The claims that were refused in the last hour, up to 20 kinds, the most come first. "
        "Each scheduler adds what it has refused every 3 seconds."
    )
    refused_by_minute: list[RefusedInMinute] = Field(
        description="The same by minute, the oldest first; without minutes in which none was refused."
    )
