"""The ports of a simulated host: who has their VFs, and how the number of these is changed."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Collection

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import PciDevice
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.simulation import SimulatedTree


class SimulatedPorts:
    """See :class:`~portclaim.services.compute_agent.port_control.PortControl`.

    ``held`` answers the devices that are prepared, attached or being restored; ``claimed`` those of claims.
    """

    def __init__(
        self,
        tree: Callable[[], SimulatedTree],
        held: Callable[[], Collection[PciAddress]],
        claimed: Callable[[], Collection[PciAddress]],
    ) -> None:
        self._tree = tree
        self._held = held
        self._claimed = claimed
        self._locks: defaultdict[PciAddress, threading.Lock] = defaultdict(threading.Lock)

    def lock(self, port: PciAddress) -> threading.Lock:
        """One for each port."""
        return self._locks[port]

    def has_claim(self, port: PciAddress) -> bool:
        """The record says so."""
        return port in self._claimed()

    def why_vfs_stay(self, port: PciDevice) -> str | None:
        """The record says who has a device; nothing else uses a simulated one."""
        tree_of_port = {port.address, *self._tree().vfs(port.address)}
        held = sorted(tree_of_port.intersection(self._held()))
        return f"{held[0]} is in an instance, or not restored yet" if held else None

    def set_num_vfs(self, port: PciAddress, count: int) -> None:
        """As the kernel does it, at once. Raises :class:`DriverError`."""
        try:
            self._tree().set_num_vfs(port, count)
        except OSError as error:
            raise DriverError(f"{port} could not get {count} VFs: {error}") from error
