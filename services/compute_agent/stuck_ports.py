"""Ports that are stuck in the kernel, because a guest has a VF that the kernel is removing.

The kernel removes the VFs of a port one after another. If a guest has one of them and does not release it,
for example because it is paused, the kernel waits, and keeps two locks meanwhile: the port's own
(``device_lock``), and in newer kernels one for the whole host (``pci_rescan_remove_lock``, taken by
``sriov_numvfs_store``). So no other port can lose or get VFs. Everything else goes on: drivers are bound and
unbound, also those of VFs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.handover_record import HandedOver
from portclaim.services.compute_agent.kernel import Kernel
from portclaim.services.compute_agent.scanner import Scan


class StuckPorts:
    """Finds them in a scan, and says what they stop. Threads may share one."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def problems(self, scan: Scan, rows: Iterable[HandedOver]) -> Mapping[PciAddress, str]:
        """What a stuck port stops: itself and its VFs, and other ports that have VFs."""
        found: dict[PciAddress, str] = {}
        for port, whom in self._stuck(scan, rows).items():
            for device in scan.devices:
                if port in {device.address, device.parent}:
                    found[device.address] = f"the kernel is removing the VFs of {port}, and waits for {whom}"
                elif device.dev_type is DeviceType.PF and device.num_vfs:
                    found.setdefault(device.address, _why_other(port, whom))
        return found

    def _stuck(self, scan: Scan, rows: Iterable[HandedOver]) -> Mapping[PciAddress, str]:
        """The stuck ports, and for whom each waits."""
        holders = {row.address: row for row in rows}
        by_address = {device.address: device for device in scan.devices}
        half_linked = {by_address[address] for address in scan.problems if address in by_address}
        ports = {device.parent or device.address for device in half_linked}
        return {
            port: _whom(port, half_linked, holders)
            for port in sorted(ports)
            if not self._kernel.answers_for(port)
        }

    def check(self, port: PciAddress, scan: Scan, rows: Iterable[HandedOver]) -> None:
        """Raise :class:`DriverError` if the kernel cannot remove the VFs of this port now.

        The write would take effect when nobody wants it any more. No event of the kernel tells of a stuck
        port, so this needs a scan of its own.
        """
        for stuck, whom in self._stuck(scan, rows).items():
            raise DriverError(f"{port}: {_why_other(stuck, whom)}")


def _why_other(port: PciAddress, whom: str) -> str:
    return f"its VFs cannot be removed now: the kernel is removing those of {port}, and waits for {whom}"


def _whom(
    port: PciAddress, half_linked: Collection[PciDevice], holders: Mapping[PciAddress, HandedOver]
) -> str:
    """Which guest has which VF. The one that is being removed no longer names its PF."""
    leaving = sorted(device.address for device in half_linked if device.parent == port)
    for vf in leaving:
        if (row := holders.get(vf)) is not None and row.instance_id is not None:
            return f"instance {row.instance_id} of claim {row.claim_id} to release {vf}: end it"
    return f"a guest or another program to release {', '.join(map(str, leaving)) or 'a VF of it'}: end it"
