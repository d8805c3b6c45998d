"""Network settings of a PF that goes to a guest: only its card can bring them there.

The guest's driver reads what the card has. So the settings are made on the host, and the PF is bound to its
driver anew, with a reset in between, as it happens on the way to a guest. What is different then would not
reach the guest, and the claim fails.
"""

from __future__ import annotations

from collections.abc import Callable

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.rpc.agent_messages import Step
from portclaim.common.rpc.network_settings import NetworkSettings
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.kernel import Kernel
from portclaim.services.compute_agent.network_record import NetworkRecord
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.vf_link import PortSettings, SettingRefused, VfLinks


class PfNetwork:
    """Sets and restores the settings of PFs. The caller holds the lock of the port.

    ``happens(condition)`` waits for the kernel and udev.
    """

    def __init__(
        self,
        scanner: Scanner,
        links: VfLinks,
        kernel: Kernel,
        record: NetworkRecord,
        happens: Callable[[Callable[[], bool]], bool],
    ) -> None:
        self._scanner = scanner
        self._links = links
        self._kernel = kernel
        self._record = record
        self._happens = happens

    def lend(self, step: Step, pf: PciDevice, asked: NetworkSettings) -> None:
        """Set it, and find out whether the card keeps it.

        The PF may be on vfio-pci already. Raises :class:`DriverError` with each setting that cannot be had.
        """
        wanted = PortSettings(asked.mac, asked.mtu)
        others = (
            asked.model_dump(exclude_none=True).keys() - wanted._fields - {"request_index", "device_index"}
        )
        if others:
            raise DriverError(f"{pf.address} is a PF: {', '.join(sorted(others))} are settings of VFs")
        if self._record.port_is_lent(pf.address, step.claim_id):
            return
        if self._kernel.is_on_vfio(pf.address):  # an agent was killed
            self._kernel.return_to_driver(pf.address, None, None)
        netdev = self._netdev(pf.address)
        driver = self._kernel.driver(pf.address)
        self._record.note_port(step, pf.address, self._links.read_port(netdev))
        failures = self._set(netdev, wanted)
        if not failures:
            self._bind_anew(pf.address)
            now = self._links.read_port(self._netdev(pf.address))
            failures = [
                f"{name} {value}: it was set, but does not stay when the PF goes to a guest"
                for name, value in wanted._asdict().items()
                if value is not None and getattr(now, name) != value
            ]
        if failures:
            raise DriverError(
                f"{pf.address} cannot get its network settings from its driver {driver}: "
                + "; ".join(failures)
            )
        self._record.port_has_settings(pf.address)

    def take_back(self, address: PciAddress) -> None:
        """Set the settings to what they were before the claim. The PF is on its driver again.

        Raises :class:`DriverError`: then the caller tries again.
        """
        before = self._record.port_before(address)
        if before is None:
            return
        device = self._scanner.look(address)
        if device is not None and device.dev_type is DeviceType.PF:
            failures = self._set(self._netdev(address), before)
            if failures:
                raise DriverError(f"{address} still has settings of a claim: {'; '.join(failures)}")
        self._record.forget_port(address)

    def _set(self, netdev: str, wanted: PortSettings) -> list[str]:
        """Set what differs. Answers what failed."""
        shown = self._links.read_port(netdev)
        failures = []
        for name, value in wanted._asdict().items():
            if value is None or getattr(shown, name) == value:
                continue
            try:
                self._links.write_port(netdev, name, value)
            except SettingRefused as error:
                failures.append(f"{name} {value}: {error}")
        return failures

    def _bind_anew(self, address: PciAddress) -> None:
        if self._scanner.vfs(address):
            self._kernel.set_num_vfs(address, 0)
        self._kernel.bind_anew(address)

    def _netdev(self, address: PciAddress) -> str:
        """The interface of a PF, which may have got its driver just now."""
        found: list[str] = []

        def has_one() -> bool:
            device = self._scanner.look(address)
            if device is not None and device.netdev is not None:
                found.append(device.netdev)
            return bool(found)

        if not (has_one() or self._happens(has_one)):
            raise DriverError(f"{address} has no network interface on this host, so nothing can be set")
        return found[0]
