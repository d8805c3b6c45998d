"""``<hostdev>``: the element of libvirt's domain XML that gives a guest a PCI device.

Its alias names the claim, so that the agent recognizes the device in the guest.
"""

from __future__ import annotations

import re
from uuid import UUID
from xml.etree import ElementTree as ET

from portclaim.common.pci.address import PciAddress

ALIAS_PREFIX = "ua-portclaim-"
"""libvirt keeps aliases that begin with ``ua-``, in the running domain and in its configuration."""


def alias(claim_id: UUID, address: PciAddress) -> str:
    """The alias of a claim's device. No other device of any claim has the same."""
    return f"{ALIAS_PREFIX}{claim_id}-{re.sub('[:.]', '-', str(address))}"


def hostdev_element(address: PciAddress, claim_id: UUID | None, *, managed: bool) -> str:
    """The element, as text. ``claim_id`` None: it has no alias. ``managed``: libvirt binds the drivers."""
    hostdev = ET.Element("hostdev", mode="subsystem", type="pci", managed="yes" if managed else "no")
    source = ET.SubElement(hostdev, "source")
    ET.SubElement(
        source,
        "address",
        domain=f"0x{address.domain:04x}",
        bus=f"0x{address.bus:02x}",
        slot=f"0x{address.slot:02x}",
        function=f"0x{address.function:x}",
    )
    if claim_id is not None:
        ET.SubElement(hostdev, "alias", name=alias(claim_id, address))
    ET.indent(hostdev)
    return ET.tostring(hostdev, encoding="unicode")
