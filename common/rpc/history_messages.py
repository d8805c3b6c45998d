"""Messages about the past: who held what, and what changed, of a claim, a host or a device."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from portclaim.common.rpc.fields import Address, AnsweredClaimStatus, Host, Message, Uuid
from portclaim.common.rpc.operator_messages import AwaitedStep


class HistoryFilter(Message):
    """Whose history to answer: that of a claim, of a host, or of a device of a host.

    Example::

        for holding in scheduler.history(HistoryFilter(host="compute-7")).holdings:
            print(holding.address, holding.instance_id, holding.held_from)
    """

    claim_id: Uuid | None = Field(default=None, description="The claim. Null: `host` is set.")
    host: Host | None = Field(default=None, description="The host. Null: `claim_id` is set.")
    address: Address | None = Field(
        default=None,
        description="With `host`: only the device with this PCI address, and the VFs of a PF. Null: all.",
    )
    limit: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=20, description="The most holdings, the most changes and the most steps to answer."
    )

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.claim_id is None) == (self.host is None):
            raise ValueError("name either a claim_id or a host")
        if self.address is not None and self.host is None:
            raise ValueError("an address needs its host")
        return self


class Holding(Message):
    """A claim that holds or held a device, from the view `device_history`."""

    host: str = Field(description="The host of the device.")
    address: str = Field(description="PCI address of the device.")
    dev_type: str = Field(description="`type-PF`, `type-VF` or `type-PCI`.")
    claim_id: Uuid = Field(description="The claim.")
    instance_id: Uuid = Field(description="Its instance.")
    held_from: str = Field(description="When the claim took the device, ISO 8601.")
    held_until: str | None = Field(description="When the device was free again. Null: it is still held.")
    claim_status: AnsweredClaimStatus = Field(description="The status of the claim now.")


class Change(Message):
    """A change of the status of a claim, or of a device that no claim has caused."""

    at: str = Field(description="When, ISO 8601.")
    address: str | None = Field(description="PCI address of the device. Null: it is a change of the claim.")
    from_status: str | None = Field(description="The status before. Null: it is the first change.")
    to_status: str = Field(description="The status after.")
    cause: str = Field(description="Why it changed.")


class History(Message):
    """What happened to a claim, a host or a device, as far as it has not been pruned."""

    holdings: list[Holding] = Field(description="Who held what, the newest first.")
    changes: list[Change] = Field(
        description="Changes of the claim, or of the devices of the host, the newest first."
    )
    steps: list[AwaitedStep] = Field(
        description="Steps of the claim or of the host that its agent has not answered, the oldest first."
    )
    host_is_silent: bool | None = Field(
        description="True: the agent of the host has been silent for too long. Null: there is no host yet."
    )
