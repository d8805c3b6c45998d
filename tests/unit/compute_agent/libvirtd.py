"""A small fake of libvirt-python, for tests of how the driver handles the answers of libvirt.

The hardware tests run the same driver against the real libvirt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from xml.etree import ElementTree as ET

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.drivers.hostdev import Hostdev, hostdevs

VIR_DOMAIN_AFFECT_LIVE, VIR_DOMAIN_AFFECT_CONFIG, VIR_DOMAIN_XML_INACTIVE = 1, 2, 2
VIR_ERR_NO_DOMAIN, VIR_ERR_OPERATION_FAILED = 42, 9
VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_ID_DEVICE_ADDED = 0, 19
VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED = 15
VIR_DOMAIN_EVENT_DEFINED, VIR_DOMAIN_EVENT_STARTED, VIR_DOMAIN_EVENT_STOPPED = 0, 2, 5
VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_RESUMED = 3, 4
VIR_DOMAIN_RUNNING, VIR_DOMAIN_PAUSED = 1, 3
VIR_DOMAIN_RUNNING_BOOTED, VIR_DOMAIN_PAUSED_MIGRATION, VIR_DOMAIN_PAUSED_STARTING_UP = 1, 2, 11


def virEventRegisterDefaultImpl() -> None:
    pass


def virEventRunDefaultImpl() -> None:
    """Its events come from :class:`Libvirtd`, in the thread of the test."""
    threading.Event().wait()


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
        self.arrives = False  # by a live migration that goes on
        self.ended = False
        self._uuid = uuid

    def UUIDString(self) -> str:
        return self._uuid

    def isActive(self) -> bool:
        self._be_there()
        return self.live is not None

    def state(self) -> tuple[int, int]:
        if self.arrives:
            return VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_MIGRATION
        return VIR_DOMAIN_RUNNING, VIR_DOMAIN_RUNNING_BOOTED

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
        self._hearers: list[tuple[int, Callable[..., None], object]] = []
        self._closed: list[tuple[Callable[..., None], object]] = []
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

    def domainEventRegisterAny(
        self, _domain: None, event: int, heard: Callable[..., None], opaque: object
    ) -> None:
        if not self.is_up:
            raise libvirtError(VIR_ERR_OPERATION_FAILED)
        self._hearers.append((event, heard, opaque))

    def registerCloseCallback(self, closed: Callable[..., None], opaque: object) -> None:
        self._closed.append((closed, opaque))

    def setKeepAlive(self, _interval: int, _count: int) -> None:
        pass

    def tell(self, event: int, domain: Domain, *details: object) -> None:
        """What libvirt tells of a domain."""
        for wanted, heard, opaque in list(self._hearers):
            if wanted == event:
                heard(self, domain, *details, opaque)

    def restart(self) -> None:
        """All connections are lost. Nobody can connect until :attr:`is_up`."""
        self.is_up = False
        hearers, self._hearers = self._hearers, []
        closed, self._closed = self._closed, []
        assert hearers
        for each, opaque in closed:
            each(self, 0, opaque)

    def close(self) -> None:
        """It goes on for its other connections."""

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
