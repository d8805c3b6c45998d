"""No hypervisor: devices are put on vfio-pci and left to whoever runs the guests."""

from __future__ import annotations

from collections.abc import Sequence

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.messages import Step, StepDevice
from portclaim.services.compute_agent.drivers.base import Attachment
from portclaim.services.compute_agent.drivers.real_host import RealHostDriver


class VfioDriver(RealHostDriver):
    """An instance has what the record of devices that are away says: there is nobody else to ask."""

    def attachments(self) -> Sequence[Attachment]:
        """The devices that left and are not on their way home."""
        return self.lent()

    def attach(self, step: Step, device: StepDevice) -> None:
        """Put the device on vfio-pci for the instance."""
        self.handover.lend(step, PciAddress.parse(device.address))

    def detach(self, step: Step, device: StepDevice) -> None:
        """Bring the device home, once no process has it open any more."""
        address = PciAddress.parse(device.address)
        row = self.handover.find(address)
        if row is not None and row.claim_id in {None, step.claim_id}:
            self.handover.bring_home(address)
