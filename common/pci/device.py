"""A PCI device as a host shows it, before anybody decided what to do with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from portclaim.common.pci.address import PciAddress


class DeviceType(StrEnum):
    """What a PCI function is to SR-IOV, in Nova's words (``PciDeviceType``).

    ``VDPA`` is a VF behind a vDPA bus: a VF to its PF, and never given to who did not ask for one.
    """

    PCI = "type-PCI"
    PF = "type-PF"
    VF = "type-VF"
    VDPA = "vdpa"


@dataclass(frozen=True, slots=True)
class PciDevice:
    """One PCI function of a host, as read from sysfs.

    A PF is a function with the SR-IOV capability, whether its VFs are switched on or not; a VF is
    a function with a ``physfn`` link (kernel ABI, ``sysfs-bus-pci``), and ``parent`` is where that
    link leads. Ids are four lower-case hexadecimal digits. ``numa_node`` is None where the kernel
    says -1. ``vf_product_id`` is the product id that all VFs of this PF have (``sriov_vf_device``).
    """

    address: PciAddress
    dev_type: DeviceType
    vendor_id: str
    product_id: str
    numa_node: int | None = None
    parent: PciAddress | None = None
    class_id: str | None = None
    driver: str | None = None
    iommu_group: int | None = None
    netdev: str | None = None
    mac: str | None = None
    serial: str | None = None
    total_vfs: int = 0
    num_vfs: int = 0
    vf_product_id: str | None = None
