"""A PCI device as a host shows it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from portclaim.common.pci.address import PciAddress


class DeviceType(StrEnum):
    """The SR-IOV role of a PCI function, in Nova's words (``PciDeviceType``).

    ``VDPA`` is a VF behind a vDPA bus. It is a VF of its PF, but it serves only requests that name this type.
    """

    PCI = "type-PCI"
    PF = "type-PF"
    VF = "type-VF"
    VDPA = "vdpa"


@dataclass(frozen=True, slots=True)
class PciDevice:
    """One PCI function of a host, as read from sysfs.

    A PF is a function that has VFs or can have them. A VF is a function with a ``physfn`` link (kernel ABI,
    ``sysfs-bus-pci``); ``parent`` is the PF that the link names. Ids are four lower-case hexadecimal digits.
    ``numa_node`` is None where the kernel says -1. ``vf_product_id`` is the product id of all VFs of this PF
    (``sriov_vf_device``); ``vf_offset`` and ``vf_stride`` say where they are (``sriov_offset``,
    ``sriov_stride``). ``vf_num`` is the number of the PF's ``virtfn`` link to this VF. ``exists`` is False
    for a VF that its PF does not have now and gets by demand, see :mod:`portclaim.common.pci.vfs_by_demand`.
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
    vf_num: int | None = None
    vf_offset: int = 0
    vf_stride: int = 0
    exists: bool = True
