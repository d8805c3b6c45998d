"""The payloads of every call: what may be in them, checked where they arrive.

Strict: no unknown field, no missing one, no number written as text. All of them are JSON objects.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.errors import InvalidPciAddress
from portclaim.common.pci.request import MAX_COUNT


def _pci_address(text: str) -> str:
    try:
        return str(PciAddress.parse(text))
    except InvalidPciAddress as error:
        raise ValueError(str(error)) from None


# PostgreSQL stores neither NUL nor half of a surrogate pair, both of which JSON can spell.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise ValueError("text with a NUL or half a surrogate pair in it cannot be stored")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Uuid = Annotated[UUID, Field(strict=False)]
Host = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._:-]+$")]
Address = Annotated[str, AfterValidator(_pci_address)]
DevType = Literal["type-PCI", "type-PF", "type-VF"]
DeviceStatus = Literal["available", "claimed", "allocated", "unclaimable", "unavailable", "removed"]
HexId = Annotated[str, Field(pattern=r"^[0-9a-f]{4}$")]
Number = Annotated[int, Field(ge=0, lt=2**31)]
ClaimStatus = Literal["waiting", "claimed", "allocated", "releasing", "released", "failed", "expired"]
MoveStatus = Literal["begun", "completing", "completed", "reverted"]


class Message(BaseModel):
    """A payload: strict, immutable, with no field beyond those declared."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Nothing(Message):
    """No argument, or no answer but that it is done."""


# --- inventory: compute agent → conductor ---------------------------------------------------------


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


# --- steps: scheduler and conductor → compute agent → conductor ------------------------------------


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


# --- claims: API layer → scheduler -----------------------------------------------------------------

MAX_WAIT = 7 * 24 * 3600
"""Seconds, of a claim in line: whoever wants a port in a week will ask again."""


class DeviceRequest(Message):
    """``count`` devices, each of which satisfies one of the alternatives in ``spec``.

    For wishes that are no flavor's, like a port's: an alternative maps ``vendor_id``, ``product_id``,
    ``dev_type`` and tags (``physical_network``, ``trusted``, ...) to values; None: without that tag.
    """

    count: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    spec: Annotated[list[dict[Text, Text | None]], Field(min_length=1, max_length=16)]
    numa_policy: Literal["required", "socket", "preferred", "legacy"] = "legacy"


class ClaimRequest(Message):
    """What an instance wants, all on one host, all or nothing.

    ``extra_specs`` are the flavor's own: ``pci_passthrough:alias``, ``hw:pci_numa_affinity_policy`` and
    ``group_policy`` are read and others are ignored. ``requests`` come on top of them. ``hosts`` limits
    the choice to these, ``avoid_hosts`` leaves these out. ``numa_cells`` are the host NUMA nodes that
    the instance's memory is on; without any, no NUMA policy counts.
    The same ``claim_id`` with the same request answers with the same claim.

    ``wait``: for how many seconds the claim may wait in line if it cannot be served now; None: not at all.
    It is no part of what is requested.
    """

    claim_id: Uuid
    instance_id: Uuid
    extra_specs: dict[Text, Text] = {}
    requests: Annotated[list[DeviceRequest], Field(max_length=16)] = []
    hosts: Annotated[list[Host], Field(min_length=1)] | None = None
    avoid_hosts: list[Host] = []
    numa_cells: list[Number] = []
    wait: Annotated[int, Field(ge=1, le=MAX_WAIT)] | None = None


class ExplainRequest(Message):
    """A claim that is not made: would it be served, and if not, why?"""

    extra_specs: dict[Text, Text] = {}
    requests: Annotated[list[DeviceRequest], Field(max_length=16)] = []
    hosts: Annotated[list[Host], Field(min_length=1)] | None = None
    avoid_hosts: list[Host] = []
    numa_cells: list[Number] = []


class ClaimId(Message):
    """Which claim."""

    claim_id: Uuid


class ClaimedDevice(Message):
    """A device of a claim; ``request_index`` says for which of its PCI requests."""

    address: Address
    dev_type: DevType
    vendor_id: HexId
    product_id: HexId
    numa_node: int | None
    parent_address: Address | None
    status: str
    request_index: int


class MoveOfClaim(Message):
    """A move that a claim is, or was, an end of. Who completes or reverts it names its target."""

    source_claim_id: Uuid
    target_claim_id: Uuid
    status: MoveStatus
    reason: str | None


class Claim(Message):
    """A claim as it stands. ``reason`` says why it failed; ``devices`` are those it held, if it ended.

    One that waits, or ended before it was served, has no ``host`` and no devices.
    ``move`` is the latest that it was an end of, and only told to who looks a claim up.
    """

    claim_id: Uuid
    instance_id: Uuid
    host: str | None
    status: ClaimStatus
    reason: str | None
    step: int
    created_at: str
    updated_at: str
    devices: list[ClaimedDevice]
    move: MoveOfClaim | None = None


class FilterResult(Message):
    """How many hosts and devices one filter, and all before it, left over."""

    filter: str
    hosts: int
    devices: int


class Miss(Message):
    """A device that would do but for who holds it or its tree partners.

    ``held_by`` are their instances; ``vfs_held`` counts the held VFs of a PF that nobody holds.
    """

    host: str
    address: str
    dev_type: DevType
    status: str
    held_by: list[Uuid]
    vfs_held: int


class Explanation(Message):
    """Why a claim is served or not: what every filter left over, in order, and what came nearest.

    ``misses`` are devices of the fewest holders; ``nearest_miss`` says the same for people.
    """

    served: bool
    filters: list[FilterResult]
    misses: list[Miss] = []
    nearest_miss: str | None = None


# --- look-ups: API layer → scheduler ---------------------------------------------------------------


class DeviceFilter(Message):
    """Which devices to list; None means any. Of more than ``limit``, the first are answered."""

    host: Host | None = None
    dev_type: DevType | None = None
    status: DeviceStatus | None = None
    claim_id: Uuid | None = None
    limit: Annotated[int, Field(ge=1, le=100_000)] = 10_000


class Device(Message):
    """A device as operators see it (view ``pf_vf_tree``)."""

    host: str
    port: str
    address: str
    dev_type: DevType
    vendor_id: str
    product_id: str
    numa_node: int | None
    status: str
    effective_status: str
    reason: str | None
    claim_id: Uuid | None
    instance_id: Uuid | None
    tags: dict[str, Any]


class Devices(Message):
    """Devices in the order host, port, PF before its VFs; ``more``: there were more than asked for."""

    devices: list[Device]
    more: bool
