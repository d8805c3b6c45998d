"""A device of a claim, as answers carry it."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from pydantic import Field, model_validator

from portclaim.common.pci.binding_profile import BindingProfile, BoundDevice, binding_profile
from portclaim.common.pci.device import DeviceType
from portclaim.common.rpc.fields import Address, DevType, HexId, Message
from portclaim.common.rpc.network_settings import NetworkSettings

_FACTS = {field.name for field in dataclasses.fields(BoundDevice)} - {"dev_type"}


def _binding_profile(device: dict[str, Any]) -> BindingProfile:
    facts = {name: device[name] for name in _FACTS}
    return binding_profile(BoundDevice(dev_type=DeviceType(device["dev_type"]), **facts))


class ClaimedDevice(Message):
    """A device of a claim."""

    address: Address = Field(description="PCI address, `dddd:bb:ss.f`.")
    dev_type: DevType = Field(description="PF, VF or another PCI function.")
    vendor_id: HexId = Field(description="Four hexadecimal digits.")
    product_id: HexId = Field(description="Four hexadecimal digits.")
    numa_node: int | None = Field(description="NUMA node of the device. Null: the host does not say.")
    parent_address: Address | None = Field(description="The PF of a VF. Null: the device is not a VF.")
    status: str = Field(description="Status of the device.")
    request_index: int = Field(
        description="The PCI request that the device serves, counted from 0: first those of the extra specs, "
        "then `requests`."
    )
    tags: dict[str, str] = Field(default={}, description="Its tags from device_spec.")
    trusted: bool | None = Field(
        default=None, description="Whether its tag `trusted` says `true`. Null: it has no such tag."
    )
    vf_num: int | None = Field(
        default=None,
        description="Number of the VF on its PF, as `ip link` uses it. Null: the device is not a VF, or its "
        "agent is older than this field.",
    )
    pf_mac_address: str | None = Field(
        default=None,
        description="Permanent MAC of the VF's PF, or of the device if it is a PF. Null: the host does not "
        "say.",
    )
    pf_netdev: str | None = Field(
        default=None,
        description="Network interface of the VF's PF, or of the device if it is a PF. Null: the PF has no "
        "interface on the host, for example because an instance has the PF.",
    )
    card_serial_number: str | None = Field(
        default=None, description="Serial number of the card. Null: the card does not say."
    )
    network_settings: NetworkSettings | None = Field(
        default=None, description="What the agent sets for the claim. Null: the claim asks for nothing."
    )
    binding_profile: BindingProfile = Field(
        default_factory=_binding_profile,
        description="For a Neutron port's `binding:profile`, with the keys that Nova sets: `pci_slot`, "
        "`pci_vendor_info` and `physical_network`; for a VF also `card_serial_number`, `pf_mac_address` and "
        "`vf_num`, if they are known; for a PF also `device_mac_address`, if it is known. Empty: the service "
        "is older than this field.",
    )

    @model_validator(mode="after")
    def _has_no_profile_without_its_network(self) -> Self:
        """An older service answers no tags. Then nobody knows the network of the profile."""
        if "tags" not in self.model_fields_set:
            self.binding_profile.clear()
        return self
