"""The PCI devices of a guest, read from libvirt's domain XML."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from uuid import UUID
from xml.etree import ElementTree as ET

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.hostdev_xml import ALIAS_PREFIX, hostdev_element

_ALIAS = re.compile(ALIAS_PREFIX + r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-[0-9a-f-]+")


@dataclass(frozen=True, slots=True)
class Hostdev:
    """A PCI device of a domain. ``claim_id`` is None if its alias names no claim.

    ``element`` is the domain's own element, if the device was read from a domain.
    """

    address: PciAddress
    claim_id: UUID | None
    element: str | None = field(default=None, compare=False)

    def to_xml(self, *, managed: bool) -> str:
        """The element that attaches the device, or detaches it."""
        return hostdev_element(self.address, self.claim_id, managed=managed)


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
        claim_id = None if match is None else UUID(match[1])
        yield Hostdev(PciAddress(*numbers), claim_id, ET.tostring(element, encoding="unicode"))


def find_hostdev(present: Collection[Hostdev], hostdev: Hostdev, is_prepared: bool = True) -> str | None:
    """The claim's element for this device. If it ``is_prepared`` for the claim, any alias will do."""
    for each in present:
        named = {hostdev.claim_id, None} if is_prepared else {hostdev.claim_id}
        if each.address == hostdev.address and each.claim_id in named:
            return each.element
    return None
