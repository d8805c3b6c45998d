"""What a driver does with the ports of its host, to give them VFs by demand."""

from __future__ import annotations

import threading
from typing import Protocol

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import PciDevice


class PortControl(Protocol):
    """One for each driver. Threads may share it."""

    def lock(self, port: PciAddress) -> threading.Lock:
        """While it is held, the number of this port's VFs stays, and no step of its tree begins."""

    def has_claim(self, port: PciAddress) -> bool:
        """Is the port itself handed over for a claim?"""

    def why_vfs_stay(self, port: PciDevice) -> str | None:
        """Who has a VF of the port, or the port itself, so that the number of its VFs must stay; or None."""

    def set_num_vfs(self, port: PciAddress, count: int) -> None:
        """Give the port so many VFs, and return when they are there. It has none, or ``count`` is 0.

        Raises :class:`~portclaim.services.compute_agent.drivers.base.DriverError`.
        """
