"""May a device be handed over to an instance?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import PciDevice
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.handover_record import HandedOver, held_by_claims
from portclaim.services.compute_agent.host_use import check_group, check_not_used_by_host, group_members
from portclaim.services.compute_agent.kernel import Kernel
from portclaim.services.compute_agent.netlink import default_route_interfaces
from portclaim.services.compute_agent.restore import Restorer
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.sysfs import SysfsTree


@dataclass(frozen=True, slots=True)
class HandoverCheck:
    """Looks at the host, and changes nothing."""

    tree: SysfsTree
    scanner: Scanner
    kernel: Kernel
    restorer: Restorer

    def check(
        self,
        device: PciDevice,
        held: Mapping[PciAddress, HandedOver],
        instance_id: UUID,
        leaving: set[PciAddress],
    ) -> None:
        """Raise :class:`DriverError` if the instance must not have the device, with the reason.

        ``held`` are the devices of claims. ``leaving`` are those that the instance gets together with it.
        """
        for holder in held.values():
            if device.address in {holder.address, holder.parent} or device.parent == holder.address:
                raise DriverError(f"{holder.address} is already in instance {holder.instance_id}")
        if not self.kernel.is_on_vfio(device.address) and not self.restorer.is_managed(device.address):
            raise DriverError(
                f"{device.address} is on {device.driver or 'no driver'}, and its device_spec entry says "
                "managed: no: bind it to vfio-pci or a variant of it, or leave managed out"
            )
        theirs = {row.address for row in held.values() if row.instance_id == instance_id}
        check_group(self.tree, device.address, leaving | theirs, held.keys() - theirs)
        self.check_not_used_by_host(device.address)
        for function in (device.address, *self.scanner.vfs(device.address)):
            if self.kernel.in_use(function) and theirs.isdisjoint(group_members(self.tree, function)):
                raise DriverError(
                    f"{function} is open in a process that Portclaim did not start: see lsof /dev/vfio/*"
                )

    def check_again(self, row: HandedOver, rows: Iterable[HandedOver]) -> None:
        """Raise :class:`DriverError` if the host uses the device, which is no longer on vfio-pci.

        ``rows``: all devices that are handed over.
        """
        if self.kernel.is_on_vfio(row.address):
            return
        device = self.scanner.look(row.address)
        if device is None or device.parent != row.parent or row.instance_id is None:
            raise DriverError(f"{row.address} is gone from this host, or the kernel is removing it")
        held = dict(held_by_claims(rows))
        ours = {each.address for each in held.values() if each.claim_id == row.claim_id}
        held.pop(row.address, None)
        self.check(device, held, row.instance_id, ours)

    def check_not_used_by_host(self, address: PciAddress) -> None:
        """Raise :class:`UsedByHost` if the host uses the device or one of its VFs."""
        default_routes = default_route_interfaces()
        for function in (address, *self.scanner.vfs(address)):
            check_not_used_by_host(self.tree, function, default_routes)

    def check_released(self, address: PciAddress, rows: Iterable[HandedOver]) -> None:
        """Raise :class:`DriverError` if a guest has the device open, or another one of its IOMMU group."""
        if not self.kernel.in_use(address):
            return
        held = held_by_claims(rows)
        ours = held[address].claim_id if address in held else None
        others = [
            f"; {member} of claim {held[member].claim_id} is in the same IOMMU group: release that claim too"
            for member in sorted(group_members(self.tree, address))
            if member in held and held[member].claim_id != ours
        ]
        raise DriverError(
            f"{address} is still open in a guest: stop the guest or detach the device from it"
            + "".join(others)
        )
