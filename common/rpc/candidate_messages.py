"""Messages about candidates: the hosts that could serve a claim now."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from portclaim.common.rpc.claim_messages import (
    ApartFrom,
    AvoidHosts,
    ExtraSpecs,
    Near,
    NetworkSettingsOfDevices,
    NumaCells,
    OnlyHosts,
    Requests,
)
from portclaim.common.rpc.fields import Address, DevType, HexId, Message

MAX_CANDIDATES = 1000
"""The most hosts of one answer."""


class CandidatesRequest(Message):
    """The question which hosts could serve a claim now.

    ``extra_specs`` to ``network_settings`` mean what they mean in ClaimRequest.

    Example::

        request = CandidatesRequest(extra_specs={"pci_passthrough:alias": "nic-vf:2"}, limit=3)
        for candidate in scheduler.candidates(request).candidates:
            print(candidate.host, [device.address for device in candidate.devices], candidate.left.pfs)
    """

    extra_specs: ExtraSpecs = {}
    requests: Requests = []
    hosts: OnlyHosts = None
    avoid_hosts: AvoidHosts = []
    numa_cells: NumaCells = []
    near: Near = []
    apart_from: ApartFrom = []
    network_settings: NetworkSettingsOfDevices = []
    limit: int = Field(default=10, ge=1, le=MAX_CANDIDATES, description="The most hosts to answer.")
    after: Annotated[str, Field(max_length=500_000)] | None = Field(
        default=None,
        description="`after` of the last answer to the same request: the hosts that come next. Null: the "
        "best hosts.",
    )


class CandidateDevice(Message):
    """A device that a claim would get."""

    address: Address = Field(description="PCI address, `dddd:bb:ss.f`.")
    dev_type: DevType = Field(description="PF, VF or another PCI function.")
    vendor_id: HexId = Field(description="Four hexadecimal digits.")
    product_id: HexId = Field(description="Four hexadecimal digits.")
    numa_node: int | None = Field(description="NUMA node of the device. Null: the host does not say.")
    parent_address: Address | None = Field(description="The PF of a VF. Null: the device is not a VF.")
    request_index: int = Field(
        description="The PCI request that the device would serve, counted from 0: first those of the extra "
        "specs, then `requests`."
    )


class DevicesLeft(Message):
    """What a host would have available after the claim, of the ports and devices that fit the requests.

    A port fits if its PF or one of its VFs fits a request. A whole port counts in both numbers: as a PF, and
    with all of its VFs.
    """

    pfs: int = Field(description="PFs of these ports: so many ports are still whole.")
    vfs: int = Field(description="VFs of these ports.")
    others: int = Field(description="PCI devices without SR-IOV that fit a request.")


class Candidate(Message):
    """A host that could serve the claim now."""

    host: str = Field(description="The host.")
    devices: list[CandidateDevice] = Field(
        description="The devices that a claim with `hosts` of only this host would get now."
    )
    left: DevicesLeft = Field(description="What the host would have available after that claim.")


class Candidates(Message):
    """The hosts that could serve a claim now."""

    candidates: list[Candidate] = Field(description="The best host first, by the packing policy.")
    queued: int = Field(
        description="How many claims with the same requests wait in a queue. While there are any, no host is "
        "a candidate, because a new claim would not be served before them."
    )
    after: str | None = Field(
        description="Give it to the next call to get the hosts that come next. Null: there are no more."
    )
