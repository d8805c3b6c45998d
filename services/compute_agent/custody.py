"""May a device leave the host? Not if the host lives by it, nor if its neighbours in isolation cannot go."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.disks import host_uses
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.kernel import VFIO
from portclaim.services.compute_agent.sysfs import PCI_DEVICES, SysfsTree

_BRIDGE = "0x06"
_HARMLESS = frozenset({None, VFIO, "pci-stub"})  # kernel docs, VFIO: what leaves a group viable


def group_mates(tree: SysfsTree, address: PciAddress) -> set[PciAddress]:
    """The other functions of the device's IOMMU group, without bridges. Raises DriverError if it has none."""
    group = tree.link(f"{PCI_DEVICES}/{address}/iommu_group")
    if group is None:
        raise DriverError(f"{address} is in no IOMMU group: switch the IOMMU on in firmware and kernel")
    names = tree.names(f"kernel/iommu_groups/{group}/devices") or ()
    mates = {PciAddress.parse(name) for name in names} - {address}
    return {
        mate for mate in mates if not (tree.text(f"{PCI_DEVICES}/{mate}/class") or "").startswith(_BRIDGE)
    }


def check_group(
    tree: SysfsTree, address: PciAddress, going_along: AbstractSet[PciAddress], lent: AbstractSet[PciAddress]
) -> None:
    """Is the group viable: is each of its functions without a driver, on vfio-pci or ``going_along``?

    ``lent`` are devices of other instances, which must not share a group with this one. Raises
    :class:`DriverError`.
    """
    for mate in sorted(group_mates(tree, address) - going_along):
        driver = tree.link(f"{PCI_DEVICES}/{mate}/driver")
        if mate in lent:
            raise DriverError(f"{address} shares its IOMMU group with {mate}, which is in another instance")
        if driver not in _HARMLESS:
            raise DriverError(
                f"{address} shares its IOMMU group with {mate}, which driver {driver} of this host has"
            )


def check_not_the_hosts_own(tree: SysfsTree, address: PciAddress, default_routes: AbstractSet[int]) -> None:
    """Does the host live by this function? Raises :class:`DriverError` if it does.

    It does where a default route leaves by one of its interfaces, or where something stands on
    one: a bridge, a bond, a VLAN (kernel ABI, ``upper_*`` and ``master``); and where it uses one of
    its disks. An interface in another network namespace is some container's: of it there is only the
    directory, empty, as sysfs shows everybody the interfaces of his own namespace.
    """
    if (use := host_uses(tree, address)) is not None:
        raise DriverError(f"{address} is this host's own: {use}")
    net = f"{PCI_DEVICES}/{address}/net"
    names = tree.names(net)
    if names is not None and not names:
        raise DriverError(f"{address} is in use: its network interface is in another network namespace")
    for name in sorted(names or ()):
        if tree.number(f"{net}/{name}/ifindex") in default_routes:
            raise DriverError(f"{address} is this host's own way out: {name} has the default route")
        entries = tree.names(f"{net}/{name}") or ()
        above = {entry.removeprefix("upper_") for entry in entries if entry.startswith("upper_")}
        if "master" in entries and (master := tree.link(f"{net}/{name}/master")) is not None:
            above.add(master)
        if above:
            raise DriverError(f"{address} is this host's own: {', '.join(sorted(above))} stands on {name}")
