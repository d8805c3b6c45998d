"""What was last reported of each device, so that one that a claim has lost is reported with the reason."""

from __future__ import annotations

from collections.abc import Mapping

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import DeviceReport
from portclaim.services.compute_agent.inventory import Inventory


class LastReports:
    """Completes inventories. For one thread.

    After a restart of the agent, a device that is not on the host is left out: nothing is known of it.
    """

    def __init__(self) -> None:
        self._last: dict[str, DeviceReport] = {}

    def complete(self, inventory: Inventory, problems: Mapping[PciAddress, str]) -> Inventory:
        """Add the devices with a problem that are not on the host, and their PFs."""
        here = {device.address: device for device in inventory.devices}
        for address, reason in problems.items():
            gone = self._last.get(str(address))
            if gone is None or gone.address in here:
                continue
            parent = gone.parent_address
            if parent is not None and parent not in here:
                if parent not in self._last:
                    continue
                why = problems.get(PciAddress.parse(parent), f"{parent} was removed from its bus")
                here[parent] = self._last[parent].model_copy(update={"unusable_reason": why})
            here[gone.address] = gone.model_copy(update={"unusable_reason": reason})
        self._last = here
        if len(here) == len(inventory.devices):
            return inventory
        in_order = sorted(here.values(), key=lambda device: PciAddress.parse(device.address))
        return Inventory(in_order, inventory.numa_cells)
