"""What stands in the way of each device of a host, before anybody claims it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.address_spec import DOMAIN
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.host_use import HARMLESS, check_group, check_not_used_by_host
from portclaim.services.compute_agent.kernel import VFIO
from portclaim.services.compute_agent.netlink import default_route_interfaces
from portclaim.services.compute_agent.scanner import Scan
from portclaim.services.compute_agent.sysfs import KERNELS_OWN, SysfsTree
from portclaim.services.compute_agent.vdpa import vdpa_problems

_NO_PROC = Path("/nonexistent")


def obstacles(tree: SysfsTree, scan: Scan) -> Mapping[PciAddress, Sequence[str]]:
    """Why a device of the scan could not be handed over, as far as the host shows it now.

    These are the checks that an agent makes when it hands a device over. Of another tree than the kernel's
    own, no routes and no mounts are known.
    """
    is_here = tree.root == KERNELS_OWN
    routes = default_route_interfaces() if is_here else frozenset()
    proc = None if is_here else _NO_PROC
    vdpa = vdpa_problems(tree)
    devices = {device.address: device for device in scan.devices}
    vfs: dict[PciAddress, list[PciAddress]] = {}
    for device in scan.devices:
        if device.parent is not None:
            vfs.setdefault(device.parent, []).append(device.address)
    found: dict[PciAddress, list[str]] = {}
    for device in scan.devices:
        address = device.address
        reasons = [vdpa[address]] if address in vdpa else []
        if address in scan.problems:
            reasons.append(scan.problems[address])
        if address.domain > DOMAIN.limit:
            reasons.append("device_spec cannot name PCI domains above ffff")
        if device.parent is not None and _is_on_vfio(devices.get(device.parent)):
            reasons.append(
                f"its PF {device.parent} is on {VFIO}, so no driver of this host serves its VFs: bind the PF "
                "to its own driver"
            )
        reasons.extend(_of_group(tree, device, scan.devices))
        reasons.extend(_of_host(tree, device, vfs.get(address, ()), routes, proc))
        if reasons:
            found[address] = reasons
    return found


def _of_group(tree: SysfsTree, device: PciDevice, others: Sequence[PciDevice]) -> list[str]:
    """Why the device's IOMMU group is not viable. A recorded tree may have no list of its members."""
    try:
        check_group(tree, device.address, frozenset(), frozenset())
    except DriverError as error:
        return [_about(device, error)]
    return [
        f"shares its IOMMU group with {other.address}, which this host uses with driver {other.driver}"
        for other in others
        if other.iommu_group == device.iommu_group is not None
        and other.address != device.address
        and other.driver not in HARMLESS
    ][:1]


def _of_host(
    tree: SysfsTree, device: PciDevice, vfs: Sequence[PciAddress], routes: frozenset[int], proc: Path | None
) -> list[str]:
    """What the host uses the device for, or a VF of it."""
    reasons = []
    for function in (device.address, *vfs):
        try:
            check_not_used_by_host(tree, function, routes, proc)
        except DriverError as error:
            reasons.append(_about(device, error))
    return reasons


def _about(device: PciDevice, error: DriverError) -> str:
    """The reason, without the address of the device itself."""
    return str(error).removeprefix(f"{device.address} ")


def _is_on_vfio(pf: PciDevice | None) -> bool:
    return pf is not None and pf.dev_type is DeviceType.PF and pf.driver == VFIO
