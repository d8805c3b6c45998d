"""Messages of compute agents: inventory reports, steps, answers to steps, holdings."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from portclaim.common.rpc.fields import (
    Address,
    AnsweredClaimStatus,
    DevType,
    HexId,
    Host,
    Message,
    Number,
    Text,
    Uuid,
)
from portclaim.common.rpc.network_settings import NetworkSettings
from portclaim.common.rpc.versions import Since

MOST_DEVICES = 16_384
"""How many devices a host can report."""

MOST_STEPS = 256
"""How many steps, or answers to steps, are in one message."""

WITH_SETTINGS = "withsettings"
"""What is added to the status of a holding whose devices have network settings."""


class DeviceReport(Message):
    """One PCI device of a host."""

    address: Address = Field(description="PCI address, `dddd:bb:ss.f`.")
    dev_type: DevType = Field(description="PF, VF or another PCI function.")
    vendor_id: HexId = Field(description="Four hexadecimal digits.")
    product_id: HexId = Field(description="Four hexadecimal digits.")
    numa_node: Number | None = Field(
        default=None, description="NUMA node of the device. Null: the host does not say."
    )
    parent_address: Address | None = Field(
        default=None, description="The PF of a VF. A VF needs it, other devices must not have it."
    )
    offered: bool = Field(
        default=True,
        description="True: claims may have it, because device_spec matches it.",
    )
    unusable_reason: Text | None = Field(
        default=None, description="Why the device cannot be used now. Null: it can."
    )
    tags: dict[Text, Text] = Field(default={}, description="Tags from device_spec. Requests match them.")
    attributes: dict[Text, Text | int | bool | None] = Field(
        default={}, description="Facts that operators see. Requests do not match them."
    )


class NumaCell(Message):
    """A NUMA node of a host."""

    id: Number = Field(description="Number of the NUMA node.")
    socket: Number | None = Field(default=None, description="Its socket. Null: the host does not say.")
    cpus: list[Number] = Field(default=[], description="Its CPUs.")


class InventoryReport(Message):
    """The devices of a host, or what has changed since an earlier report, or only a sign of life."""

    host: Host = Field(description="The host.")
    agent_id: Uuid = Field(description="The agent. It keeps this id when it restarts.")
    digest: Annotated[Text, Field(min_length=1, max_length=128)] = Field(
        description="Digest of the inventory. Equal digests mean equal inventories."
    )
    devices: Annotated[list[DeviceReport], Field(max_length=MOST_DEVICES)] | None = Field(
        default=None,
        description="All devices that device_spec matches, and the PFs of the VFs among them; with "
        "`base_digest`, only those that are new or have changed. Null: a sign of life, nothing has changed "
        "since the report with this digest.",
    )
    numa_cells: list[NumaCell] = Field(default=[], description="The NUMA nodes of the host.")
    base_digest: Annotated[Text | None, Field(min_length=1, max_length=128), Since("1.1")] = Field(
        default=None,
        description="Digest of the report that the changes apply to. Null: `devices` has all devices.",
    )
    removed: Annotated[list[Address], Field(max_length=MOST_DEVICES), Since("1.1")] = Field(
        default=[], description="With `base_digest`: the devices that the host no longer has."
    )

    @model_validator(mode="after")
    def _is_a_forest(self) -> InventoryReport:
        by_address = {device.address: device for device in self.devices or ()}
        if len(by_address) != len(self.devices or ()):
            raise ValueError("more than one device has the same address")
        for device in by_address.values():
            if device.dev_type != "type-VF":
                if device.parent_address is not None:
                    raise ValueError(f"{device.address} is a {device.dev_type}, which cannot have a parent")
            elif device.parent_address is None:
                raise ValueError(f"{device.address} is a VF and needs the address of its PF")
            elif (pf := by_address.get(device.parent_address)) is None and self.base_digest is not None:
                continue  # the conductor knows the PF, or asks for all devices
            elif pf is None or pf.dev_type != "type-PF":
                raise ValueError(
                    f"{device.address} is a VF, but the report has no PF with its parent's address "
                    f"{device.parent_address}"
                )
        return self

    @model_validator(mode="after")
    def _has_a_base_if_it_is_partial(self) -> InventoryReport:
        if self.base_digest is None and self.removed:
            raise ValueError(
                "a report with removed devices needs the base_digest that they were removed from"
            )
        if self.base_digest is not None and self.devices is None:
            raise ValueError("a report with a base_digest needs devices: those that have changed, or []")
        if both := {device.address for device in self.devices or ()}.intersection(self.removed):
            raise ValueError(f"{min(both)} is both among the devices and removed")
        return self


class InventoryAnswer(Message):
    """The conductor's answer to a report."""

    resend: bool = Field(
        description="True: the conductor does not know this digest, and needs the whole inventory."
    )


class SignOfLife(Message):
    """An agent lives, and its host has what it last reported."""

    host: Host = Field(description="The host.")
    agent_id: Uuid = Field(description="The agent.")
    digest: Annotated[Text, Field(min_length=1, max_length=128)] = Field(
        description="Digest of the inventory."
    )


class StepDevice(Message):
    """A device of a step. The agent compares it with the host's device before it acts."""

    address: Address = Field(description="PCI address, `dddd:bb:ss.f`.")
    dev_type: DevType = Field(description="PF, VF or another PCI function.")
    vendor_id: HexId = Field(description="Four hexadecimal digits.")
    product_id: HexId = Field(description="Four hexadecimal digits.")
    parent_address: Address | None = Field(
        default=None, description="The PF of a VF. Null: the device is not a VF."
    )
    network_settings: Annotated[NetworkSettings | None, Since("1.1")] = Field(
        default=None,
        description="What the agent sets before the instance gets the device. Null: the claim asks for "
        "nothing.",
    )


StepAction = Literal["prepare", "attach", "unplug", "detach"]


class Step(Message):
    """A step that an agent must carry out for a claim."""

    claim_id: Uuid = Field(description="The claim.")
    step: int = Field(
        ge=1,
        description="Number of the step within its claim, from 1. A higher step replaces lower ones.",
    )
    action: StepAction = Field(
        description="What the agent does with the devices. `prepare`: it takes them from the host, so that "
        "the instance can have them. `attach`: it also attaches them, as soon as the instance is on the "
        "host. `unplug`: it takes them from the instance and keeps them ready. `detach`: it gives them back "
        "to the host."
    )
    instance_id: Uuid = Field(description="The instance of the claim.")
    devices: list[StepDevice] = Field(min_length=1, description="The devices of the claim.")
    _trace: str | None = PrivateAttr(default=None)
    _request_id: str | None = PrivateAttr(default=None)

    @property
    def trace(self) -> str | None:
        """Its trace. It goes with the call, not as a field: so an agent of any release takes the step."""
        return self._trace

    @property
    def request_id(self) -> str | None:
        """The request that it comes from, for the log. It goes with the call too."""
        return self._request_id

    def traced(self, parent: str | None, request_id: str | None = None) -> Self:
        """The same step, which now belongs to the trace of ``parent``, and to this request if it has none."""
        self._trace = parent
        self._request_id = self._request_id or request_id
        return self


class Steps(Message):
    """Several steps for one host."""

    steps: Annotated[list[Step], Field(min_length=1, max_length=MOST_STEPS)] = Field(
        description="The steps. Each is taken as if it came alone."
    )


class StepAnswer(Message):
    """How a step of a claim ended."""

    claim_id: Uuid = Field(description="The claim of the step.")
    step: int = Field(ge=1, description="Number of the step.")
    outcome: Annotated[Literal["done", "failed", "prepared"], Since("1.1", ("prepared",))] = Field(
        description="How the step ended. `prepared`: the devices are ready, and the instance does not have "
        "them. If the instance is not on the host yet, the agent answers `prepared` to a step `attach`, and "
        "`done` when the instance has them."
    )
    reason: Text | None = Field(default=None, description="Why the step failed.")


class StepResult(StepAnswer):
    """An agent's answer to a step. The agent may send it more than once."""

    host: Host = Field(description="The agent's host.")
    agent_id: Uuid = Field(description="The agent.")


class StepResults(Message):
    """An agent's answers to several steps, each of another claim."""

    host: Host = Field(description="The agent's host.")
    agent_id: Uuid = Field(description="The agent.")
    answers: Annotated[list[StepAnswer], Field(min_length=1, max_length=MOST_STEPS)] = Field(
        description="The answers."
    )

    @model_validator(mode="after")
    def _has_one_answer_of_a_claim(self) -> StepResults:
        if len({answer.claim_id for answer in self.answers}) < len(self.answers):
            raise ValueError("a claim has two answers: send only the last one")
        return self


class HoldingsRequest(Message):
    """The question which claims a host holds. An agent asks it when it starts and to repair its host."""

    host: Host = Field(description="The agent's host.")
    agent_id: Uuid = Field(description="The agent.")
    found: Annotated[list[Uuid], Field(max_length=65536)] = Field(
        default=[], description="The claims whose devices are handed over on this host."
    )


class Holding(Message):
    """A live claim of a host with its latest step."""

    claim_id: Uuid = Field(description="The claim.")
    instance_id: Uuid = Field(description="Its instance.")
    status: AnsweredClaimStatus = Field(
        description="Its status. If a device has network settings, `withsettings` is added to it, except to "
        "`releasing`: an agent that does not know them then leaves the claim alone."
    )
    step: int = Field(description="Number of its latest step.")
    awaited: str | None = Field(
        default=None, description="What the agent has to do in its latest step. Null: the step is answered."
    )
    attach: str = Field(
        default="auto",
        description="`auto`: attach the devices as soon as the instance is on the host. `on-call`: only "
        "prepare them.",
    )
    devices: list[StepDevice] = Field(description="Its devices.")
    traceparent: str | None = Field(
        default=None, description="The trace of its latest step, while it is awaited, as the W3C writes it."
    )

    @property
    def claim_status(self) -> str:
        """The status of the claim itself."""
        return self.status.removesuffix(WITH_SETTINGS)


class Holdings(Message):
    """The live claims of a host.

    A claim that is in ``found`` but neither in ``holdings`` nor in ``ended`` is unknown to the database,
    for example because an old backup was restored.
    """

    holdings: list[Holding] = Field(description="All live claims of the host, the oldest first.")
    ended: list[Uuid] = Field(default=[], description="Those in `found` that have ended.")


class Renewal(Message):
    """A device that may be handed out again, although its entry says ``one_time_use`` and it was used."""

    address: Address = Field(description="PCI address, `dddd:bb:ss.f`.")


class Renewed(Message):
    """The answer to a renewal."""

    renewed: bool = Field(description="False: the device was not used since it was renewed last.")
