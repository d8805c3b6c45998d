"""No hypervisor: devices are bound to vfio-pci. Another program runs the guests."""

from __future__ import annotations

from collections.abc import Sequence

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.drivers.base import Attachment, DriverError
from portclaim.services.compute_agent.drivers.real_host import RealHostDriver


class VfioDriver(RealHostDriver):
    """An instance has the devices that the handover record names and the host shows on vfio-pci.

    There is no hypervisor to ask.
    """

    def attachments(self) -> Sequence[Attachment]:
        """The devices that were handed over and not taken back, as far as the host shows the same of them."""
        return self._without_lost(self.handed_over(), self.handover.handed_over())

    def prepare(self, step: Step, device: StepDevice) -> None:
        """Bind the device to vfio-pci for the instance."""
        self.handover.hand_over(step, PciAddress.parse(device.address))

    def adopt(self, step: Step, device: StepDevice) -> None:
        """Record a device that is to be attached again and that a process has open, whosever it is."""
        address = PciAddress.parse(device.address)
        if step.action == "attach" and self.handover.find(address) is None and self.kernel.in_use(address):
            self.handover.adopt(step, address)

    def has(self, _step: Step, _device: StepDevice) -> bool:
        """False: there is no hypervisor to ask."""
        return False

    def attach(self, _step: Step, _device: StepDevice) -> None:
        """Do nothing: the program that runs the guest opens the device."""

    def unplug(self, _step: Step, device: StepDevice) -> None:
        """Check that no process has the device open. Raises :class:`DriverError`."""
        address = PciAddress.parse(device.address)
        if self.kernel.in_use(address):
            raise DriverError(f"{address} is still open in a guest: detach the device from it")

    def detach(self, step: Step, device: StepDevice) -> None:
        """Restore the device when no process has it open."""
        address = PciAddress.parse(device.address)
        row = self.handover.find(address)
        if row is not None and row.claim_id in {None, step.claim_id}:
            self.handover.take_back(address)
