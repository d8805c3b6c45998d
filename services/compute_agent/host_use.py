"""May a device be handed over? It may if the host does not use it and its IOMMU group is viable."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.disks import host_uses
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.kernel import VFIO
from portclaim.services.compute_agent.sysfs import PCI_DEVICES, SysfsTree

_BRIDGE = "0x06"
HARMLESS = frozenset({None, VFIO, "pci-stub"})  # drivers that leave a group viable (kernel docs, VFIO)


class UsedByHost(DriverError):
    """The host uses the device, or a container of it does."""


def group_members(tree: SysfsTree, address: PciAddress) -> set[PciAddress]:
    """The other functions of the device's IOMMU group, without bridges. Raises DriverError if it has none."""
    group = tree.link(f"{PCI_DEVICES}/{address}/iommu_group")
    if group is None:
        raise DriverError(f"{address} is in no IOMMU group: enable the IOMMU in firmware and kernel")
    names = tree.names(f"kernel/iommu_groups/{group}/devices") or ()
    members = {PciAddress.parse(name) for name in names} - {address}
    return {
        member
        for member in members
        if not (tree.text(f"{PCI_DEVICES}/{member}/class") or "").startswith(_BRIDGE)
    }


def check_group(
    tree: SysfsTree,
    address: PciAddress,
    handed_over_too: AbstractSet[PciAddress],
    held: AbstractSet[PciAddress],
) -> None:
    """Is the group viable? Each of its functions must have no driver, be on vfio-pci or be
    ``handed_over_too``.

    ``held`` are devices of other instances: these must not share a group with this one. Raises
    :class:`DriverError`.
    """
    for member in sorted(group_members(tree, address) - handed_over_too):
        driver = tree.link(f"{PCI_DEVICES}/{member}/driver")
        if member in held:
            raise DriverError(f"{address} shares its IOMMU group with {member}, which is in another instance")
        if driver not in HARMLESS:
            raise DriverError(
                f"{address} shares its IOMMU group with {member}, which this host uses with driver {driver}"
            )


def check_not_used_by_host(
    tree: SysfsTree, address: PciAddress, default_routes: AbstractSet[int], proc: Path | None = None
) -> None:
    """Does the host use this function? Raises :class:`UsedByHost` if it does.

    The host uses it if a default route goes through one of its interfaces; if a bridge, a bond or a VLAN is
    built on one (kernel ABI, ``upper_*`` and ``master``); or if it uses one of its disks. If an interface is
    in another network namespace, a container uses it. sysfs then shows an empty directory.
    """
    use = host_uses(tree, address) if proc is None else host_uses(tree, address, proc)
    if use is not None:
        raise UsedByHost(f"{address} is used by this host: {use}")
    net = f"{PCI_DEVICES}/{address}/net"
    names = tree.names(net)
    if names is not None and not names:
        raise UsedByHost(f"{address} is in use: its network interface is in another network namespace")
    for name in sorted(names or ()):
        if tree.number(f"{net}/{name}/ifindex") in default_routes:
            raise UsedByHost(f"{address} is used by this host: {name} has the default route")
        entries = tree.names(f"{net}/{name}") or ()
        above = {entry.removeprefix("upper_") for entry in entries if entry.startswith("upper_")}
        if "master" in entries and (master := tree.link(f"{net}/{name}/master")) is not None:
            above.add(master)
        if above:
            raise UsedByHost(f"{address} is used by this host: {', '.join(sorted(above))} is built on {name}")
