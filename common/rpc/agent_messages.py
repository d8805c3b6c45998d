"""Messages of compute agents: inventory reports, steps, answers to steps, holdings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from portclaim.common.rpc.fields import (
    Address,
    ClaimStatus,
    DevType,
    HexId,
    Host,
    Message,
    Number,
    Text,
    Uuid,
)


class DeviceReport(Message):
    """One PCI device of a host. ``attributes`` is shown to operators and never matched."""

    address: Address
    dev_type: DevType
    vendor_id: HexId
    product_id: HexId
    numa_node: Number | None = None
    parent_address: Address | None = None
    offered: bool = True
    unusable_reason: Text | None = None
    tags: dict[Text, Text] = {}
    attributes: dict[Text, Text | int | bool | None] = {}


class NumaCell(Message):
    """A NUMA node of a host with its CPUs; ``socket`` is None where the host does not say."""

    id: Number
    socket: Number | None = None
    cpus: list[Number] = []


class InventoryReport(Message):
    """All devices that a host offers, or with ``devices`` None a sign of life: nothing has changed.

    ``digest`` names the content: equal digests mean equal inventories.
    """

    host: Host
    agent_id: Uuid
    digest: Annotated[Text, Field(min_length=1, max_length=128)]
    devices: Annotated[list[DeviceReport], Field(max_length=65536)] | None = None
    numa_cells: list[NumaCell] = []

    @model_validator(mode="after")
    def _is_a_forest(self) -> InventoryReport:
        by_address = {device.address: device for device in self.devices or ()}
        if len(by_address) != len(self.devices or ()):
            raise ValueError("an address stands for more than one device")
        for device in by_address.values():
            if device.dev_type != "type-VF":
                if device.parent_address is not None:
                    raise ValueError(f"{device.address} is a {device.dev_type} and cannot have a parent")
            elif device.parent_address is None:
                raise ValueError(f"{device.address} is a VF and needs the address of its PF")
            elif (pf := by_address.get(device.parent_address)) is None or pf.dev_type != "type-PF":
                raise ValueError(f"{device.address}: its parent {device.parent_address} is no PF here")
        return self


class InventoryAnswer(Message):
    """``resend``: the conductor does not know this digest; send the whole inventory."""

    resend: bool


class StepDevice(Message):
    """A device that a step is about, with what it has to be for the step to be right."""

    address: Address
    dev_type: DevType
    vendor_id: HexId
    product_id: HexId
    parent_address: Address | None = None


class Step(Message):
    """Something an agent has to do for a claim. A claim's steps are numbered from 1; the highest counts."""

    claim_id: Uuid
    step: Annotated[int, Field(ge=1)]
    action: Literal["attach", "detach"]
    instance_id: Uuid
    devices: Annotated[list[StepDevice], Field(min_length=1)]


class StepResult(Message):
    """An agent's answer to a step; the same answer again is as good as once."""

    host: Host
    agent_id: Uuid
    claim_id: Uuid
    step: Annotated[int, Field(ge=1)]
    outcome: Literal["done", "failed"]
    reason: Text | None = None


class HoldingsRequest(Message):
    """Which claims should a host hold? ``found`` are those for which it has given devices away."""

    host: Host
    agent_id: Uuid
    found: Annotated[list[Uuid], Field(max_length=65536)] = []


class Holding(Message):
    """One live claim of a host with its latest step."""

    claim_id: Uuid
    instance_id: Uuid
    status: ClaimStatus
    step: int
    devices: list[StepDevice]


class Holdings(Message):
    """All live claims of a host, oldest first; and those that were ``found`` though they have ended.

    What was found and is neither is unknown here, as it is after an old backup was restored.
    """

    holdings: list[Holding]
    ended: list[Uuid] = []
