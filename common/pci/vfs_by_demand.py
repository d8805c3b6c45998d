"""VFs that a port gets when somebody wants one: those that it does not have yet are offered too.

``"num_vfs": "0-64"`` in an entry of ``[pci] device_spec`` asks for that. The SR-IOV specification (1.1, 2.1.2
and 3.3.9 to 3.3.11) says where the VFs of a port will be, and the kernel shows what it needs for that
(kernel ABI, ``sysfs-bus-pci``: ``sriov_offset``, ``sriov_stride``, ``sriov_vf_device``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.device_spec_entry import DeviceSpec
from portclaim.common.pci.errors import DeviceOutOfReach
from portclaim.common.pci.host import HostView
from portclaim.common.pci.routing import vf_addresses


def entry_of(port: PciDevice, specs: DeviceSpecs) -> DeviceSpec | None:
    """The entry that takes the port and gives it VFs by demand; None: it has a number of VFs that stays."""
    if port.dev_type is not DeviceType.PF or all(spec.most_vfs is None for spec in specs.specs):
        return None
    view = HostView.of([port])
    try:
        match = specs.seen_from(view).match(port, view)
    except DeviceOutOfReach:
        return None
    return None if match is None or match.spec.most_vfs is None else match.spec


def most_vfs(port: PciDevice, spec: DeviceSpec) -> int:
    """How many VFs the port gets by demand, not more than it can have.

    0: its VFs cannot be offered before they exist, because the kernel does not show where they will be.
    """
    if not port.vf_offset or port.vf_product_id is None:
        return 0
    return min(spec.most_vfs or 0, port.total_vfs)


def with_vfs_by_demand(devices: Sequence[PciDevice], specs: DeviceSpecs) -> tuple[PciDevice, ...]:
    """The devices of a host, and the VFs that its ports can be given, in order of address."""
    if all(spec.most_vfs is None for spec in specs.specs):
        return tuple(devices)
    known = {device.address for device in devices}
    possible = [vf for port in devices for vf in _vfs_of(port, specs) if vf.address not in known]
    return tuple(sorted([*devices, *possible], key=lambda device: device.address))


def _vfs_of(port: PciDevice, specs: DeviceSpecs) -> Iterable[PciDevice]:
    spec = entry_of(port, specs)
    if spec is None or port.vf_product_id is None:
        return
    addresses = vf_addresses(port.address, port.vf_offset, port.vf_stride, most_vfs(port, spec))
    for number, address in enumerate(addresses):
        yield _vf(port, port.vf_product_id, number, address)


def _vf(port: PciDevice, product_id: str, number: int, address: PciAddress) -> PciDevice:
    """A VF has its PF's vendor and class (SR-IOV specification 1.1, 3.4.1.1 and 3.4.1.6)."""
    return PciDevice(
        address=address,
        dev_type=DeviceType.VF,
        vendor_id=port.vendor_id,
        product_id=product_id,
        numa_node=port.numa_node,
        parent=port.address,
        class_id=port.class_id,
        vf_num=number,
        exists=False,
    )
