"""What Neutron must know of a device to bind a port to it, in the shape of its ``binding:profile``.

The keys, and which device has which key, are Nova's (``nova/network/neutron.py``, functions
``_get_pci_device_profile`` and ``_get_vf_pci_device_profile``; ``nova/virt/libvirt/host.py``, function
``_get_pcidev_info``, for when a fact is known). They were read in Nova's development branch of August 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from portclaim.common.pci.device import DeviceType

BindingProfile = dict[str, str | int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundDevice:
    """The facts of a device that its profile is made of. None: unknown.

    ``pf_mac_address`` is the MAC of the PF of a VF, or of a PF itself. ``vf_num`` counts the VFs of a PF from
    0. ``card_serial_number`` is the PF's, if the VF shows none of its own.
    """

    dev_type: DeviceType
    address: str
    vendor_id: str
    product_id: str
    tags: Mapping[str, str]
    card_serial_number: str | None = None
    pf_mac_address: str | None = None
    vf_num: int | None = None


def binding_profile(device: BoundDevice) -> BindingProfile:
    """The profile of a device. It lacks the keys that Nova leaves out for such a device.

    - ``pci_slot``, ``pci_vendor_info`` and ``physical_network``: every device has them. The network is None
      if the device has no such tag.
    - ``card_serial_number`` and ``pf_mac_address``: only a VF has them, if they are known.
    - ``vf_num``: only a VF has it, and only together with ``pf_mac_address``.
    - ``device_mac_address``: only a PF has it, if its MAC is known. A port that gets a whole PF takes
      over the PF's MAC.

    A vDPA device is no VF here. Nova also hands on the features of a VF's network interface, as
    ``capabilities``. Portclaim does not know them.
    """
    profile: BindingProfile = {
        "pci_slot": device.address,
        "pci_vendor_info": f"{device.vendor_id}:{device.product_id}",
        "physical_network": device.tags.get("physical_network"),
    }
    if device.dev_type is DeviceType.PF and device.pf_mac_address:
        profile["device_mac_address"] = device.pf_mac_address
    if device.dev_type is not DeviceType.VF:
        return profile
    if device.card_serial_number:
        profile["card_serial_number"] = device.card_serial_number
    if device.pf_mac_address:
        profile["pf_mac_address"] = device.pf_mac_address
        if device.vf_num is not None:
            profile["vf_num"] = device.vf_num
    return profile
