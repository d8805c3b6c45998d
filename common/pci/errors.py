"""What can be wrong with PCI input. Every message names the offending value and what to do about it."""

from __future__ import annotations


class PciError(ValueError):
    """The root of everything that :mod:`portclaim.common.pci` refuses."""


class InvalidPciAddress(PciError):
    """Text that is not the address of one PCI function, ``dddd:bb:ss.f``."""


class InvalidOption(PciError):
    """A value of a ``[pci]`` option that has no meaning.

    ``entry`` says which value, as ``device_spec 3`` (counted from 1) or ``device_spec 3, item 2``
    for one of a list; ``key`` is the offending key of the JSON object, where there is one.
    """

    def __init__(self, reason: str, entry: str | None = None, key: str | None = None) -> None:
        self.reason = reason
        self.entry = entry
        self.key = key
        super().__init__(": ".join(part for part in (entry, key, reason) if part is not None))


class InvalidDeviceSpec(InvalidOption):
    """An entry of ``[pci] device_spec`` that has no meaning."""


class InvalidAlias(InvalidOption):
    """An entry of ``[pci] alias``, or an extra spec that asks for one, that has no meaning."""


class UnknownAlias(InvalidAlias):
    """An extra spec that asks for an alias that nobody has defined."""


class InvalidRequest(PciError):
    """A PCI request that no host could ever be asked, like one for 0 devices."""


class DeviceOutOfReach(PciError):
    """A device of a host whose address device_spec has no words for: a PCI domain above ffff."""


class InvalidTransition(PciError):
    """A change of a device's status that its own status or its tree does not allow."""


class WrongOwner(InvalidTransition):
    """A change asked for in the name of an instance that does not hold the device."""
