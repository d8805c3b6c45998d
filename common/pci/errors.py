"""Errors in PCI input. Each message names the offending value and what to do about it."""

from __future__ import annotations


class PciError(ValueError):
    """The base class of all errors of :mod:`portclaim.common.pci`."""


class InvalidPciAddress(PciError):
    """Text that is not the address of one PCI function, ``dddd:bb:ss.f``."""


class InvalidOption(PciError):
    """A value of a ``[pci]`` option is invalid.

    ``entry`` names the value: ``device_spec 3`` (counted from 1), or ``device_spec 3, item 2`` in a list.
    ``key`` is the offending key of the JSON object, if there is one.
    """

    def __init__(self, reason: str, entry: str | None = None, key: str | None = None) -> None:
        self.reason = reason
        self.entry = entry
        self.key = key
        super().__init__(": ".join(part for part in (entry, key, reason) if part is not None))

    @property
    def about_entry(self) -> str:
        """The message without the name of the entry."""
        return ": ".join(part for part in (self.key, self.reason) if part)


class InvalidDeviceSpec(InvalidOption):
    """An entry of ``[pci] device_spec`` is invalid."""


class InvalidAlias(InvalidOption):
    """An entry of ``[pci] alias``, or an extra spec that asks for an alias, is invalid."""


class UnknownAlias(InvalidAlias):
    """An extra spec asks for an alias that is not defined."""


class InvalidRequest(PciError):
    """A PCI request is invalid, for example a request for 0 devices."""


class DeviceOutOfReach(PciError):
    """device_spec cannot name the address of a device: its PCI domain is above ffff."""


class InvalidTransition(PciError):
    """The status of a device, or of its PF or VFs, does not allow this change."""


class WrongOwner(InvalidTransition):
    """The change is for an owner that does not hold the device."""
