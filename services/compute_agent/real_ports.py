"""The ports of a real host: who has their VFs, and how the number of these is changed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import PciDevice
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.handover import Handover
from portclaim.services.compute_agent.host_use import UsedByHost, check_not_used_by_host
from portclaim.services.compute_agent.kernel import VFIO, Kernel
from portclaim.services.compute_agent.netlink import default_route_interfaces
from portclaim.services.compute_agent.restore import Restorer
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.vdpa import vdpa_problems


class RealPorts:
    """See :class:`~portclaim.services.compute_agent.port_control.PortControl`."""

    def __init__(
        self, tree: SysfsTree, scanner: Scanner, kernel: Kernel, restorer: Restorer, handover: Handover
    ) -> None:
        self._tree = tree
        self._scanner = scanner
        self._kernel = kernel
        self._restorer = restorer
        self._handover = handover

    def lock(self, port: PciAddress) -> threading.Lock:
        """The lock under which the devices of this tree are handed over and restored."""
        return self._handover.ports[port]

    def has_claim(self, port: PciAddress) -> bool:
        """The record says so."""
        row = self._handover.find(port)
        return row is not None and row.claim_id is not None

    def why_vfs_stay(self, port: PciDevice) -> str | None:
        """As long as the port has no VFs, only the port itself can be held or used."""
        vfs = self._scanner.vfs(port.address)
        for row in self._handover.handed_over():
            if row.address == port.address or row.address in vfs:
                here = "being restored" if row.claim_id is None else f"in instance {row.instance_id}"
                return f"{row.address} is {here}"
        if port.driver in {None, VFIO}:
            return f"{port.address} is on {port.driver or 'no driver'}, which makes no VFs"
        return self._why_used(port.address, vfs)

    def _why_used(self, port: PciAddress, vfs: Sequence[PciAddress]) -> str | None:
        """Not by a claim: by the host, or by somebody else."""
        for vf in vfs:
            if self._kernel.is_on_vfio(vf):
                return f"{vf} is on vfio-pci, and Portclaim did not bind it"
        vdpa, routes = vdpa_problems(self._tree), default_route_interfaces()
        for address in (port, *vfs):
            if address in vdpa:
                return f"{address} {vdpa[address]}"
            try:
                check_not_used_by_host(self._tree, address, routes)
            except UsedByHost as error:
                return str(error)
        return None

    def set_num_vfs(self, port: PciAddress, count: int) -> None:
        """Write it. The operator's hook runs when the VFs are there. Raises :class:`DriverError`."""
        self._handover.stuck_ports.check(port, self._scanner.scan(), self._handover.handed_over())
        device = self._scanner.look(port)
        if device is None:
            raise DriverError(f"{port} is gone from this host")
        if count:
            self._restorer.set_vfs(device, count)
        else:
            self._kernel.set_num_vfs(port, 0)
