"""Are the devices of claims where the record says, and are they still the same devices?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import PciDevice
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.handover_record import Card, HandedOver
from portclaim.services.compute_agent.kernel import Kernel
from portclaim.services.compute_agent.scanner import ScanError, Scanner
from portclaim.services.compute_agent.sysfs import PCI_DEVICES, SysfsTree


@dataclass(frozen=True, slots=True)
class LentDevices:
    """Compares the record of the handed over devices with what the kernel shows. Changes nothing.

    ``verified``: the directories in sysfs of the devices that were the right ones. A device that is made anew
    has another.
    """

    tree: SysfsTree
    scanner: Scanner
    kernel: Kernel
    verified: dict[PciAddress, int] = field(default_factory=dict)

    def look(self, address: PciAddress) -> object:
        """What the host shows of the device. Two answers are the same if nothing has changed."""
        identity = self.tree.identity(f"{PCI_DEVICES}/{address}")
        return identity, self.scanner.look(address), self.scanner.vfs(address), self.kernel.override(address)

    def card_at(self, port: PciAddress) -> Card:
        """The card of a PF, or of a device without VFs."""
        device = self.scanner.look(port)
        return Card() if device is None else Card(device.serial, device.mac)

    def row(
        self, step: Step, device: PciDevice, driver: str | None, override: str | None, num_vfs: int
    ) -> HandedOver:
        """What to record of a device that the step's claim gets."""
        return HandedOver(
            device.address,
            device.parent,
            step.claim_id,
            step.instance_id,
            driver,
            override,
            num_vfs,
            device.iommu_group,
            self.card_at(device.parent or device.address),
        )

    def trouble(self, row: HandedOver) -> str | None:
        """Why the claim of the row does not have its device; None: it has it."""
        address = row.address
        identity = self.tree.identity(f"{PCI_DEVICES}/{address}")
        if identity is None:
            return f"{address} is gone from this host: {self._why_gone(row)}"
        if self.verified.get(address) == identity and self.kernel.is_on_vfio(address):
            return None
        if (reason := self.why_another(row)) is not None:
            return reason
        if not self.kernel.is_on_vfio(address):
            return (
                f"{address} was taken from its claim: it is on {self.kernel.driver(address) or 'no driver'}"
            )
        group = self.tree.link(f"{PCI_DEVICES}/{address}/iommu_group")
        if row.iommu_group is not None and group != str(row.iommu_group):
            return f"{address} was made again: its IOMMU group is {group}, and was {row.iommu_group}"
        self.verified[address] = identity
        return None

    def is_another_card(self, row: HandedOver) -> bool:
        """Is another card at the address now?"""
        return row.card != Card() and self.card_at(row.port).is_another(row.card)

    def why_another(self, row: HandedOver) -> str | None:
        """The same as a reason."""
        if not self.is_another_card(row):
            return None
        return (
            f"{row.address} is on another card than when it was handed over: {row.port} has "
            f"{self.card_at(row.port)} now, and had {row.card}"
        )

    def ended_with_its_port(self, row: HandedOver) -> bool:
        """Is it a VF that no longer exists? There is nothing to restore then."""
        return row.parent is not None and self.scanner.look(row.address) is None

    def as_it_is(self, row: HandedOver) -> HandedOver:
        """The row with the IOMMU group that the device has now."""
        device = self.scanner.look(row.address)
        return row if device is None else replace(row, iommu_group=device.iommu_group)

    def on_moved_cards(self, lost: Iterable[HandedOver]) -> Mapping[PciAddress, str]:
        """Devices on cards that were somewhere else when a device of them was handed over, with the reason.

        ``lost`` are the devices that claims do not have. A bus gets another number when a card is added.
        """
        sought = [row for row in lost if row.card != Card()]
        if not sought:
            return {}
        try:
            devices = self.scanner.scan().devices
        except ScanError:
            return {}
        found: dict[PciAddress, str] = {}
        for row in sought:
            ports = {
                device.address
                for device in devices
                if device.address != row.port and Card(device.serial, device.mac).is_same(row.card)
            }
            for device in devices:
                if device.address in ports or device.parent in ports:
                    found[device.address] = (
                        f"its card was at {row.port} when {row.address} was handed over to claim "
                        f"{row.claim_id}, which has not ended: release that claim first"
                    )
        return found

    def _why_gone(self, row: HandedOver) -> str:
        if row.parent is None:
            return "it was removed from its bus"
        if self.tree.identity(f"{PCI_DEVICES}/{row.parent}") is None:
            return f"its PF {row.parent} was removed from its bus"
        return f"its PF {row.parent} has {len(self.scanner.vfs(row.parent))} VFs now"
