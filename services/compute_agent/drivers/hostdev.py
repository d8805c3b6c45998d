"""``<hostdev>``: the element of libvirt's domain XML for a PCI device of a guest.

Its alias names the claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID
from xml.etree import ElementTree as ET

from portclaim.common.pci.address import PciAddress

# libvirt keeps aliases that begin with "ua-" as they are, in the running domain and in its configuration.
_ALIAS = re.compile(r"ua-portclaim-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-[0-9a-f-]+")


@dataclass(frozen=True, slots=True)
class Hostdev:
    """A PCI device of a domain. ``claim_id`` is None if Portclaim did not attach it."""

    address: PciAddress
    claim_id: UUID | None

    def to_xml(self, *, managed: bool) -> str:
        """The element that attaches the device, or detaches it."""
        hostdev = ET.Element("hostdev", mode="subsystem", type="pci", managed="yes" if managed else "no")
        source = ET.SubElement(hostdev, "source")
        ET.SubElement(
            source,
            "address",
            domain=f"0x{self.address.domain:04x}",
            bus=f"0x{self.address.bus:02x}",
            slot=f"0x{self.address.slot:02x}",
            function=f"0x{self.address.function:x}",
        )
        if self.claim_id is not None:
            place = re.sub("[:.]", "-", str(self.address))
            ET.SubElement(hostdev, "alias", name=f"ua-portclaim-{self.claim_id}-{place}")
        return ET.tostring(hostdev, encoding="unicode")


def hostdevs(domain_xml: str) -> Iterator[Hostdev]:
    """The PCI devices of a domain, ``<interface type='hostdev'>`` included."""
    devices = ET.fromstring(domain_xml).find("devices")  # noqa: S314 - libvirtd is trusted
    for element in devices if devices is not None else ():
        is_interface = element.tag == "interface" and element.get("type") == "hostdev"
        if not is_interface and (element.tag, element.get("type")) != ("hostdev", "pci"):
            continue
        address = element.find("source/address")
        if address is None or address.get("type", "pci") != "pci":
            continue
        numbers = (int(address.get(name, "0"), 0) for name in ("domain", "bus", "slot", "function"))
        alias = element.find("alias")
        match = None if alias is None else _ALIAS.fullmatch(alias.get("name", ""))
        yield Hostdev(PciAddress(*numbers), None if match is None else UUID(match[1]))
