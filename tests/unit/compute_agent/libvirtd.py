"""A small fake of libvirt-python, for tests of how the driver handles the answers of libvirt.

The hardware tests run the same driver against the real libvirt.
"""

from __future__ import annotations

import threading
from xml.etree import ElementTree as ET

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.drivers.hostdev import Hostdev, hostdevs

VIR_DOMAIN_AFFECT_LIVE, VIR_DOMAIN_AFFECT_CONFIG, VIR_DOMAIN_XML_INACTIVE = 1, 2, 2
VIR_ERR_NO_DOMAIN, VIR_ERR_OPERATION_FAILED = 42, 9


def registerErrorHandler(_handler: object, _context: object) -> None:
    pass


class libvirtError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"error {code}")
        self._code = code

    def get_error_code(self) -> int:
        return self._code


class Domain:
    """``live`` and ``config``: its ``<hostdev>`` elements. A ``deaf`` guest completes no detach."""

    def __init__(self, uuid: str, *, active: bool = True, persistent: bool = True) -> None:
        self.live: list[str] | None = [] if active else None
        self.config: list[str] | None = [] if persistent else None
        self.deaf = False
        self.ended = False
        self._uuid = uuid

    def UUIDString(self) -> str:
        return self._uuid

    def isActive(self) -> bool:
        self._be_there()
        return self.live is not None

    def isPersistent(self) -> bool:
        return self.config is not None

    def XMLDesc(self, flags: int = 0) -> str:
        self._be_there()
        elements = self.config if flags & VIR_DOMAIN_XML_INACTIVE else self.live
        return f"<domain><devices>{''.join(elements or [])}</devices></domain>"

    def attachDeviceFlags(self, xml: str, flags: int) -> None:
        self._chosen(flags).append(xml)

    def detachDeviceFlags(self, xml: str, flags: int) -> None:
        elements = self._chosen(flags)
        if xml not in elements:
            raise libvirtError(VIR_ERR_OPERATION_FAILED)
        if not (self.deaf and flags == VIR_DOMAIN_AFFECT_LIVE):
            elements.remove(xml)

    def addresses(self) -> tuple[set[PciAddress] | None, set[PciAddress] | None]:
        """The addresses of its devices, live and in its configuration."""
        return _addresses(self.live), _addresses(self.config)

    def _chosen(self, flags: int) -> list[str]:
        elements = self.live if flags == VIR_DOMAIN_AFFECT_LIVE else self.config
        if elements is None:
            raise libvirtError(VIR_ERR_OPERATION_FAILED)
        return elements

    def _be_there(self) -> None:
        if self.ended:
            raise libvirtError(VIR_ERR_NO_DOMAIN)


def _addresses(elements: list[str] | None) -> set[PciAddress] | None:
    if elements is None:
        return None
    for element in elements:
        assert ET.fromstring(element).get("mode") == "subsystem"
    return {each.address for each in hostdevs(f"<domain><devices>{''.join(elements)}</devices></domain>")}


def by_another_hand(address: PciAddress) -> str:
    """A ``<hostdev>`` element that an operator attached by hand."""
    return Hostdev(address, None).to_xml(managed=True)


class Libvirtd:
    """The daemon. :meth:`open` replaces ``libvirt.open``. While the daemon hangs, no call returns."""

    def __init__(self) -> None:
        self.domains: list[Domain] = []
        self.is_up = True
        self.opened = 0
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()

    def open(self, _uri: str) -> Libvirtd:
        self.opened += 1
        return self

    def isAlive(self) -> bool:
        return self.is_up

    def close(self) -> None:
        self.is_up = False

    def listAllDomains(self) -> list[Domain]:
        self._take_your_time()
        return list(self.domains)

    def lookupByUUIDString(self, uuid: str) -> Domain:
        self._take_your_time()
        for domain in self.domains:
            if domain.UUIDString() == uuid:
                return domain
        raise libvirtError(VIR_ERR_NO_DOMAIN)

    def _take_your_time(self) -> None:
        self.asked += 1
        assert self.answers.wait(60)
