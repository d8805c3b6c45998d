"""What can be wrong with PCI input. Every message names the offending value and what to do about it."""


class PciError(ValueError):
    """The root of everything that :mod:`common.pci` refuses."""


class InvalidPciAddress(PciError):
    """Text that is not the address of one PCI function, ``dddd:bb:ss.f``."""


class InvalidDeviceSpec(PciError):
    """An entry of ``[pci] device_spec`` that has no meaning."""


class InvalidAlias(PciError):
    """An entry of ``[pci] alias``, or an extra spec that asks for one, that has no meaning."""


class InvalidTransition(PciError):
    """A change of a device's status that its own status or its tree does not allow."""
