"""Messages of claims: what a caller asks for, the claim, and the explanation of a refusal; and lists of
devices.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from portclaim.common.pci.request import MAX_COUNT
from portclaim.common.rpc.fields import (
    Address,
    ClaimStatus,
    DeviceStatus,
    DevType,
    HexId,
    Host,
    Message,
    MoveStatus,
    Number,
    Text,
    Uuid,
)

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
