"""Short ways to make devices for tests."""

from __future__ import annotations

from typing import Any

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.host import HostView


def at(text: str) -> PciAddress:
    return PciAddress.parse(text)


def pf(address: str = "0000:81:00.0", **facts: Any) -> PciDevice:
    facts = {"total_vfs": 8, "vf_product_id": "1018", "netdev": "ens1f0"} | facts
    return PciDevice(at(address), DeviceType.PF, "15b3", "1017", **facts)


def vf(address: str = "0000:81:00.2", parent: str = "0000:81:00.0", **facts: Any) -> PciDevice:
    return PciDevice(at(address), DeviceType.VF, "15b3", "1018", parent=at(parent), **facts)


def card(address: str = "0000:0a:00.0", **facts: Any) -> PciDevice:
    return PciDevice(at(address), DeviceType.PCI, "8086", "0435", **facts)


PORT = HostView.of([pf()])
