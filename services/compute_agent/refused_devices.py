"""Free devices that were refused because the host uses them: they are not offered until it does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.host_use import UsedByHost


class RefusedDevices:
    """Threads may share one. After a restart of the agent, the next claim finds them again.

    ``check`` raises :class:`UsedByHost` for a device that the host uses. Only devices that were refused are
    checked: no event of the kernel tells that a bridge has taken an interface.
    """

    def __init__(self, check: Callable[[PciAddress], None]) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._refused: set[PciAddress] = set()

    def add(self, address: PciAddress) -> None:
        """The device was refused."""
        with self._lock:
            self._refused.add(address)

    def problems(self) -> Mapping[PciAddress, str]:
        """Those that the host still uses, and what for."""
        found = {}
        with self._lock:
            refused = set(self._refused)
        for address in refused:
            try:
                self._check(address)
            except UsedByHost as error:
                found[address] = str(error)
            else:
                with self._lock:
                    self._refused.discard(address)
        return found
