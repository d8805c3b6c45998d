"""Restore a device: from vfio-pci back to its driver, and a port's VFs as they were."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs, Match
from portclaim.common.pci.errors import DeviceOutOfReach
from portclaim.common.pci.host import HostView
from portclaim.common.pci.network_settings import DEFAULTS, VfSettings
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.kernel import VFIO, Kernel
from portclaim.services.compute_agent.representor import Representor
from portclaim.services.compute_agent.scanner import Scanner

LOG = logging.getLogger(__name__)


def override_to_restore(device: PciDevice, override: str | None) -> str | None:
    """What ``driver_override`` the device gets back: none that contradicts the driver that it is on."""
    if not _contradicts(override, device.driver):
        return override
    LOG.warning(
        "%s has driver_override %s, but is on %s: it will return to %s without driver_override",
        device.address,
        override,
        device.driver,
        device.driver,
    )
    return None


def _contradicts(override: str | None, driver: str | None) -> bool:
    """A tool has left it there: it takes effect only when the device is bound the next time."""
    return None not in {override, driver} and override != driver


@dataclass(frozen=True, slots=True)
class Hook:
    """The operator's own program. It runs with the agent's rights when a device is back on its driver.

    It runs for each port, for each VF that has a representor, and for each device of one-time use. Its
    environment describes the device: ``PORTCLAIM_ADDRESS``, ``PORTCLAIM_NUM_VFS``, ``PORTCLAIM_NETDEV``,
    ``PORTCLAIM_REPRESENTOR`` and ``PORTCLAIM_PHYS_PORT_NAME`` (empty if the device has none).
    """

    program: Path
    timeout: float

    def run(
        self, address: PciAddress, num_vfs: int, netdev: str | None, representor: Representor | None = None
    ) -> None:
        """Run it to its end. Raises :class:`DriverError` if it fails or takes longer than its timeout."""
        about = {
            "PORTCLAIM_ADDRESS": str(address),
            "PORTCLAIM_NUM_VFS": str(num_vfs),
            "PORTCLAIM_NETDEV": netdev or "",
            "PORTCLAIM_REPRESENTOR": representor.netdev if representor else "",
            "PORTCLAIM_PHYS_PORT_NAME": representor.phys_port_name if representor else "",
        }
        try:
            subprocess.run(  # noqa: S603 - the operator's own choice
                [self.program],
                env=os.environ | about,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.timeout,
                check=True,
                process_group=0,  # the signals of the agent's group are not for it
            )
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().splitlines()[-1:] or ["nothing"]
            raise DriverError(
                f"{address}: {self.program} exited with {error.returncode}: {said[0]}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise DriverError(f"{address}: {self.program} took more than {self.timeout:g} s") from error
        except OSError as error:
            raise DriverError(f"{address}: {self.program} cannot be run: {error}") from error


@dataclass(slots=True)
class Restorer:
    """Restores devices. ``device_spec`` may name a number of VFs; ``hook`` runs for each port.

    ``wait_until(condition, timeout)`` waits for the kernel and udev.
    """

    kernel: Kernel
    scanner: Scanner
    device_spec: Sequence[str]
    hook: Hook | None
    timeout: float
    wait_until: Callable[[Callable[[], bool], float], bool]

    def restore(self, address: PciAddress, driver: str | None, override: str | None, num_vfs: int) -> None:
        """Return the device to ``driver``; a port gets as many VFs as device_spec says, or else ``num_vfs``.

        May be called again at any point. Raises :class:`DriverError` with what is missing.
        """
        if self.scanner.look(address) is None:
            raise DriverError(f"{address} is gone from this host")
        self._return(address, driver, override)
        device = self.scanner.look(address)
        if device is not None and device.dev_type is DeviceType.PF:
            self.set_vfs(device, self._wanted_vfs(address, num_vfs))
        elif device is not None and self.hook is not None:
            representor = self.kernel.representor(address, device.parent)
            if representor is not None or self._is_used_once(address):
                self.hook.run(address, 0, device.netdev, representor)

    def _return(self, address: PciAddress, driver: str | None, override: str | None) -> None:
        """Bind the device to its driver again, or to what an operator has chosen since it was handed over."""
        kernel = self.kernel
        if kernel.is_on_vfio(address) and kernel.driver(address) == driver:
            return  # it was there before it was handed over
        now = kernel.override(address)
        if now not in {None, VFIO, driver, override}:
            LOG.warning("%s: an operator has set driver_override to %s: it goes there", address, now)
            driver = override = now
        elif _contradicts(override, driver):
            override = None
        if driver is not None and not kernel.has_driver(driver):
            here = kernel.driver(address)
            if here in {None, VFIO}:
                raise DriverError(f"{address} cannot return to its driver {driver}: load that module")
            LOG.warning("%s: this host has no driver %s any more: it stays on %s", address, driver, here)
            driver = here
        kernel.return_to_driver(address, driver, override)
        if driver not in {None, VFIO} and not self.happens(lambda: self.kernel.driver(address) == driver):
            raise DriverError(
                f"{address} did not return to its driver {driver} in {self.timeout:g} s: "
                f"it is on {kernel.driver(address) or 'no driver'}, see the kernel's log"
            )

    def set_vfs(self, port: PciDevice, wanted: int) -> None:
        """Give the port so many VFs, run the hook, and return when the VFs are seen. Raises DriverError."""
        address = port.address
        if port.num_vfs != wanted:
            if port.num_vfs:
                self.kernel.set_num_vfs(address, 0)
            if wanted:
                self.kernel.set_num_vfs(address, wanted)
        if self.hook is not None:
            self.hook.run(address, wanted, port.netdev)
        if not self.happens(lambda: self._visible_vfs(address) == wanted):
            raise DriverError(
                f"{address} shows {self._visible_vfs(address)} of its {wanted} VFs after {self.timeout:g} s"
            )

    def happens(self, condition: Callable[[], bool]) -> bool:
        """Wait for the kernel and udev until the condition holds. Does it?"""
        return condition() or self.wait_until(condition, self.timeout)

    def _visible_vfs(self, address: PciAddress) -> int:
        found = (self.scanner.look(vf) for vf in self.scanner.vfs(address))
        return sum(vf is not None and vf.parent == address for vf in found)

    def is_managed(self, address: PciAddress) -> bool:
        """Does the agent bind drivers of this device? Not if its device_spec entry says ``managed: no``."""
        match = self._entry_of(address)
        return match is None or match.tags.get("managed") != "false"

    def vf_defaults(self, address: PciAddress) -> VfSettings:
        """The network settings of a VF that its device_spec entry says, or else the usual ones."""
        if not any("vf_defaults" in text for text in self.device_spec):
            return DEFAULTS  # most hosts: the entry need not be looked up
        match = self._entry_of(address)
        return DEFAULTS if match is None else match.spec.vf_defaults

    def _is_used_once(self, address: PciAddress) -> bool:
        match = self._entry_of(address)
        return match is not None and match.tags.get("one_time_use") == "true"

    def _wanted_vfs(self, address: PciAddress, num_vfs: int) -> int:
        """The number of VFs that device_spec sets for the port, or else the number that it had.

        Not more than the port can have.
        """
        match = self._entry_of(address)
        wanted = num_vfs if match is None or match.spec.num_vfs is None else match.spec.num_vfs
        port = self.scanner.look(address)
        if port is None or wanted <= port.total_vfs:
            return wanted
        LOG.warning("%s can have %s VFs, and %s are wanted: it gets as many", address, port.total_vfs, wanted)
        return port.total_vfs

    def _entry_of(self, address: PciAddress) -> Match | None:
        devices = self.scanner.scan().devices
        view = HostView.of(devices)
        specs = DeviceSpecs.parse(self.device_spec, view, report_in_placement=True)  # checked at the start
        device = next((device for device in devices if device.address == address), None)
        try:
            return None if device is None else specs.match(device, view)
        except DeviceOutOfReach:
            return None
