"""Messages about claims and devices: what a caller asks for, the claim, and why it is refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from portclaim.common.pci.request import MAX_COUNT
from portclaim.common.rpc.claimed_device import ClaimedDevice
from portclaim.common.rpc.device_request import DeviceRequest
from portclaim.common.rpc.fields import (
    AnsweredClaimStatus,
    AttachMode,
    DeviceStatus,
    DevType,
    HexId,
    Host,
    Message,
    MoveStatus,
    Number,
    Project,
    Text,
    Uuid,
)
from portclaim.common.rpc.network_settings import DeviceNetworkSettings, one_entry_for_each_device
from portclaim.common.rpc.pages import After, Limit, Next
from portclaim.common.rpc.versions import Since

MAX_WAIT = 7 * 24 * 3600
"""The longest time in seconds that a claim may wait in its queue: a week."""

MAX_NAMED_CLAIMS = 1000
"""The most claims that a request may name in ``near``, and in ``apart_from``."""

ExtraSpecs = Annotated[
    dict[Text, Text],
    Field(
        description="The flavor's extra specs. The scheduler reads `pci_passthrough:alias`, "
        "`hw:pci_numa_affinity_policy` and `group_policy`, and ignores all others."
    ),
]
OnlyHosts = Annotated[
    Annotated[list[Host], Field(min_length=1)] | None,
    Field(description="Only these hosts may serve the claim. Null: any host."),
]
AvoidHosts = Annotated[list[Host], Field(description="These hosts may not serve the claim.")]
NumaCells = Annotated[
    list[Number],
    Field(
        description="The NUMA nodes of the host that hold the instance's memory. NUMA policies have no "
        "effect without them."
    ),
]
Near = Annotated[
    list[Uuid],
    Field(
        max_length=MAX_NAMED_CLAIMS,
        description="The host of each of these claims must serve the claim too. None of them may be waiting, "
        "or have ended.",
    ),
]
ApartFrom = Annotated[
    list[Uuid],
    Field(
        max_length=MAX_NAMED_CLAIMS,
        description="The hosts of these claims may not serve the claim. None of them may be waiting, or have "
        "ended.",
    ),
]


Requests = Annotated[
    list[DeviceRequest],
    Field(max_length=16, description="PCI requests in addition to those in `extra_specs`."),
]


NetworkSettingsOfDevices = Annotated[
    list[DeviceNetworkSettings],
    Field(
        max_length=MAX_COUNT,
        description="Settings for devices of network cards, each for another device. Only hosts whose agents "
        "set them serve the claim.",
    ),
    AfterValidator(one_entry_for_each_device),
]


class ClaimRequest(Message):
    """The devices that an instance needs. One host serves all of them, or the claim is refused.

    Example::

        request = ClaimRequest(
            claim_id=uuid4(),
            instance_id=uuid4(),
            extra_specs={"pci_passthrough:alias": "nic-vf:2"},
            wait=300,
        )
        claim = scheduler.claim(request)
        print(claim.status, claim.host)
    """

    claim_id: Uuid = Field(
        description="The caller chooses this id. A repeated call with the same id and the same request gets "
        "the same claim. The same id with another request is refused with ClaimConflict."
    )
    instance_id: Uuid = Field(description="The instance that gets the devices.")
    extra_specs: ExtraSpecs = {}
    requests: Requests = []
    hosts: OnlyHosts = None
    avoid_hosts: AvoidHosts = []
    numa_cells: NumaCells = []
    wait: Annotated[int, Field(ge=1, le=MAX_WAIT)] | None = Field(
        default=None,
        description="If no host can serve the claim now, it waits in a queue for up to this many seconds. "
        "Null: it is refused at once. A repeated call may give another value.",
    )
    attach: Annotated[AttachMode, Since("1.1")] = Field(
        default="auto",
        description="`auto`: the agent attaches the devices as soon as the instance is on the host. "
        "`on-call`: the agent only prepares them. It attaches them when the caller calls attach.",
    )
    guest_within: Annotated[Annotated[int, Field(ge=0, le=MAX_WAIT)] | None, Since("1.1")] = Field(
        default=None,
        description="A prepared claim expires after this many seconds if the instance has not got its "
        "devices. 0: it does not expire. Null: `[conductor] guest_within` decides.",
    )
    near: Annotated[Near, Since("1.1")] = []
    apart_from: Annotated[ApartFrom, Since("1.1")] = []
    network_settings: Annotated[NetworkSettingsOfDevices, Since("1.1")] = []
    project: Annotated[Project | None, Since("1.1")] = Field(
        default=None,
        description="The project that the claim belongs to. Null: none. The HTTP API shows a token of a "
        "project only the claims of this project.",
    )


class ExplainRequest(Message):
    """The question whether a claim would be served now. The fields mean what they mean in ClaimRequest.

    Example::

        request = ExplainRequest(extra_specs={"pci_passthrough:alias": "nic-vf:2"}, hosts=["compute-7"])
        explanation = scheduler.explain(request)
        for step in explanation.filters:
            print(step.filter, step.hosts, step.devices)
        print(explanation.nearest_miss)
    """

    extra_specs: ExtraSpecs = {}
    requests: Requests = []
    hosts: OnlyHosts = None
    avoid_hosts: AvoidHosts = []
    numa_cells: NumaCells = []
    near: Annotated[Near, Since("1.1")] = []
    apart_from: Annotated[ApartFrom, Since("1.1")] = []
    network_settings: Annotated[NetworkSettingsOfDevices, Since("1.1")] = []


class ClaimId(Message):
    """The id of a claim."""

    claim_id: Uuid = Field(description="The claim.")


class MoveOfClaim(Message):
    """A move that has the claim as its source or its target."""

    source_claim_id: Uuid = Field(description="The claim that the instance moves from.")
    target_claim_id: Uuid = Field(
        description="The claim that the instance moves to. complete_move and revert_move take this id."
    )
    status: MoveStatus = Field(description="Status of the move.")
    reason: str | None = Field(description="Why the move ended. Null: a caller ended it, or it goes on.")


class Claim(Message):
    """A claim as it is now."""

    claim_id: Uuid = Field(description="The id that the caller chose.")
    instance_id: Uuid = Field(description="The instance that the claim is for.")
    host: str | None = Field(description="The host of the devices. Null: no host has served the claim.")
    status: AnsweredClaimStatus = Field(
        description="`waiting`: in a queue. `claimed`: devices are reserved. `prepared`: the host no longer "
        "uses them, and the instance can have them. `allocated`: they are attached. "
        "`releasing`: the agent detaches them. `released`, `failed`, `expired`: the claim has ended."
    )
    reason: str | None = Field(description="Why the claim failed, expired or was released by force.")
    step: int = Field(description="Number of its latest step for the agent. Steps count from 1.")
    created_at: str = Field(description="When the claim was made, ISO 8601.")
    updated_at: str = Field(description="When its status changed last, ISO 8601.")
    devices: list[ClaimedDevice] = Field(
        description="The devices that the claim holds, or held before it ended. Empty while it waits."
    )
    attach: str = Field(
        default="auto",
        description="`auto`: the agent attaches the devices as soon as the instance is on the host. "
        "`on-call`: not before the caller calls attach.",
    )
    guest_deadline: str | None = Field(
        default=None,
        description="When a prepared claim expires if the instance has not got its devices, ISO 8601. "
        "Null: never.",
    )
    move: MoveOfClaim | None = Field(
        default=None, description="The latest move of the claim. Only `show` answers it."
    )


class FilterResult(Message):
    """What one filter, and all filters before it, left over."""

    filter: str = Field(description="Name of the filter.")
    hosts: int = Field(description="Hosts that passed.")
    devices: int = Field(description="Devices that passed.")


class Miss(Message):
    """A device that would serve the request if it, and its PF or VFs, were not in use."""

    host: str = Field(description="Host of the device.")
    address: str = Field(description="PCI address.")
    dev_type: DevType = Field(description="PF, VF or another PCI function.")
    status: str = Field(description="Status of the device.")
    held_by: list[Uuid] = Field(description="The instances that block it.")
    vfs_held: int = Field(description="For a PF: how many of its VFs are in use.")


class Explanation(Message):
    """Whether a claim is served, and why not."""

    served: bool = Field(description="True: a host can serve the claim now.")
    filters: list[FilterResult] = Field(description="The filters in their order, with what each left over.")
    misses: list[Miss] = Field(
        default=[], description="The devices that the fewest instances block, if the claim is not served."
    )
    nearest_miss: str | None = Field(default=None, description="`misses` in words.")
    reason: str | None = Field(
        default=None,
        description="Why it is not served, in one word: the first filter that leaves no device, or `queue` "
        "if claims with the same requests wait.",
    )


class DeviceFilter(Message):
    """Which devices to list. A field that is null excludes no device.

    Example::

        for device in scheduler.devices(DeviceFilter(host="compute-7", status="available")).devices:
            print(device.port, device.address, device.dev_type)
    """

    host: Host | None = Field(default=None, description="Only devices of this host.")
    dev_type: DevType | None = Field(default=None, description="Only devices of this type.")
    status: DeviceStatus | None = Field(
        default=None, description="Only devices with this effective status. Null: all but removed devices."
    )
    claim_id: Uuid | None = Field(default=None, description="Only devices of this claim.")
    vendor_id: Annotated[HexId | None, Since("1.1")] = Field(
        default=None, description="Only devices with this vendor id."
    )
    product_id: Annotated[HexId | None, Since("1.1")] = Field(
        default=None, description="Only devices with this product id."
    )
    limit: Limit = Field(default=10_000, description="The most devices to answer.")
    after: After = None


class Device(Message):
    """A device as operators see it, from the view `pf_vf_tree`."""

    host: str = Field(description="Host of the device.")
    port: str = Field(description="PCI address of the port: the PF of a VF, or the device itself.")
    address: str = Field(description="PCI address.")
    dev_type: DevType = Field(description="PF, VF or another PCI function.")
    vendor_id: str = Field(description="Four hexadecimal digits.")
    product_id: str = Field(description="Four hexadecimal digits.")
    numa_node: int | None = Field(description="NUMA node of the device. Null: the host does not say.")
    status: str = Field(description="Status of the device itself.")
    effective_status: str = Field(
        description="The status that a claim meets. It also depends on the PF or VFs and on the host."
    )
    reason: str | None = Field(description="Why the device cannot be claimed. Null: it can.")
    claim_id: Uuid | None = Field(description="The claim that holds the device.")
    instance_id: Uuid | None = Field(description="The instance of that claim.")
    tags: dict[str, Any] = Field(description="Tags from device_spec.")
    on_host: bool = Field(default=True, description="False: the host does not have the device now.")


class Devices(Message):
    """A list of devices."""

    devices: list[Device] = Field(description="Ordered by host and port, each PF before its VFs.")
    more: bool = Field(description="True: more devices fit than `limit`.")
    after: Next = None
