"""What device_spec needs to know about a host, besides the device that it matches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice


@dataclass(frozen=True, slots=True)
class HostView:
    """The SR-IOV ports and the network interfaces of a host at one moment.

    ``pfs`` holds the functions whose ``sriov_totalvfs`` is above 0; ``netdevs`` maps an interface's
    name to the PCI function behind it.
    """

    pfs: Mapping[PciAddress, PciDevice] = field(default_factory=dict)
    netdevs: Mapping[str, PciAddress] = field(default_factory=dict)

    @classmethod
    def of(cls, devices: Iterable[PciDevice]) -> HostView:
        """The view of a host that has exactly these devices."""
        listed = tuple(devices)
        return cls(
            pfs={d.address: d for d in listed if d.dev_type is DeviceType.PF and d.total_vfs > 0},
            netdevs={d.netdev: d.address for d in listed if d.netdev is not None},
        )
