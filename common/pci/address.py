"""The address of one PCI function: ``domain:bus:slot.function`` in hexadecimal."""

from __future__ import annotations

import re
from dataclasses import dataclass

from portclaim.common.pci.errors import InvalidPciAddress

# sysfs writes the domain with at least four digits and lets it grow to 32 bits (Linux pci_name()).
_ADDRESS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.ASCII)

MAX_DOMAIN = 0xFFFFFFFF
MAX_SLOT = 0x1F


@dataclass(frozen=True, slots=True, order=True)
class PciAddress:
    """The address of one PCI function on a host. Addresses sort by their numbers, as in lspci.

    The PCI specification sets the sizes: bus 8 bits, slot (device) 5 bits, function 3 bits. The domain
    (segment) is Linux's own and may have 32 bits.
    """

    domain: int
    bus: int
    slot: int
    function: int

    @classmethod
    def parse(cls, text: str) -> PciAddress:
        """Read ``dddd:bb:ss.f`` as the kernel writes it.

        Raises :class:`InvalidPciAddress` for anything else. Only device_spec accepts partial addresses and
        wildcards.
        """
        match = _ADDRESS.fullmatch(text.lower())
        if match is None:
            raise InvalidPciAddress(
                f"{text!r} is no PCI address: write it as domain:bus:slot.function, like 0000:81:00.1"
            )
        domain, bus, slot, function = (int(field, 16) for field in match.groups())
        if slot > MAX_SLOT:
            raise InvalidPciAddress(f"{text!r} is no PCI address: slot {slot:02x} is above 1f")
        return cls(domain, bus, slot, function)

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function:x}"
