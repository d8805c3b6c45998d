"""Writes to sysfs that bind drivers, make VFs and reset devices. Each write has a deadline."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent import write_attribute
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.representor import Representor, representor_of
from portclaim.services.compute_agent.sysfs import PCI_DEVICES, SysfsTree

LOG = logging.getLogger(__name__)

VFIO = "vfio-pci"
_NO_OVERRIDE = "(null)"  # how the kernel shows a driver_override that nobody has set
_ANSWER_WITHIN = 5.0  # seconds
_QUIET: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "process_group": 0,  # the signals of the agent's group are not for it
}
_FUNCTION_LEVEL = frozenset({"flr", "af_flr", "device_specific"})  # kernel ABI, reset_method


class KernelRefused(DriverError):
    """The kernel answered a write with an error."""


class KernelBlocked(DriverError):
    """The kernel has not answered a write in time. It may answer only after a guest has released a device."""


class Kernel:
    """Binds devices to drivers and makes VFs. All methods may be called again at any point.

    A helper process makes each write. If it does not end within ``timeout`` seconds, its device is
    ``blocked`` until it ends: nothing more is written to the device.
    """

    def __init__(self, tree: SysfsTree, timeout: float, vfio: Path = Path("/dev/vfio")) -> None:
        self._tree = tree
        self._timeout = timeout
        self._vfio = vfio
        self._lock = threading.Lock()
        self._waiting: dict[PciAddress, tuple[subprocess.Popen[bytes], str]] = {}
        self._readers: dict[PciAddress, subprocess.Popen[bytes]] = {}

    def blocked(self) -> Mapping[PciAddress, str]:
        """The devices whose last write has not returned, with the reason."""
        with self._lock:
            for address in [key for key, (helper, _) in self._waiting.items() if helper.poll() is not None]:
                LOG.warning("the kernel has answered the write to %s", address)
                del self._waiting[address]
            return {
                address: f"blocked: the kernel has not answered a write to {path}"
                for address, (_, path) in self._waiting.items()
            }

    def answers_for(self, pf: PciAddress) -> bool:
        """Does the kernel answer a read of the PF's ``sriov_numvfs``? A port that is stuck lets it wait.

        The first call for a stuck port takes ``_ANSWER_WITHIN`` seconds.
        """
        with self._lock:
            reader, is_new = self._readers.get(pf), False
            if reader is None or reader.poll() is not None:
                path = str(self._tree.root / f"{PCI_DEVICES}/{pf}/sriov_numvfs")
                program = [sys.executable, "-I", "-S", "-c", "import sys; open(sys.argv[1]).read()", path]
                reader, is_new = subprocess.Popen(program, **_QUIET), True  # noqa: S603 - our own program
                self._readers[pf] = reader
        try:
            reader.wait(_ANSWER_WITHIN if is_new else 0)
        except subprocess.TimeoutExpired:
            reader.kill()  # takes effect when the kernel answers
            return False
        return True

    def driver(self, address: PciAddress) -> str | None:
        """The driver of the device now."""
        return self._tree.link(f"{PCI_DEVICES}/{address}/driver")

    def override(self, address: PciAddress) -> str | None:
        """The ``driver_override`` of the device."""
        text = self._tree.text(f"{PCI_DEVICES}/{address}/driver_override")
        return None if text in {None, "", _NO_OVERRIDE} else text

    def representor(self, address: PciAddress, pf: PciAddress | None) -> Representor | None:
        """The representor of a VF of this PF; None: it has none, or the device is no VF."""
        return None if pf is None else representor_of(self._tree, address, pf)

    def is_on_vfio(self, address: PciAddress) -> bool:
        """Is the device on vfio-pci or on a variant of it?

        Both have ``vfio-dev`` (kernel ABI, ``sysfs-devices-vfio-dev``); older kernels do not show it.
        """
        variant = self._tree.names(f"{PCI_DEVICES}/{address}/vfio-dev")
        return bool(variant) or self.driver(address) == VFIO

    def bind_to_vfio(self, address: PciAddress) -> None:
        """Bind the device to vfio-pci, if it is on no variant of it. Raises :class:`DriverError`."""
        if self.is_on_vfio(address):
            return
        self._rebind(address, VFIO)
        if not self.is_on_vfio(address):
            raise DriverError(
                f"{address} was not bound to {VFIO}: load that module, and see the kernel's log"
            )

    def return_to_driver(self, address: PciAddress, driver: str | None, override: str | None) -> None:
        """Bind the device to ``driver``, and leave ``override`` as its ``driver_override``.

        None as the driver: the kernel chooses one, or takes the one that ``override`` names. If the kernel
        prefers another driver than ``driver``, it is asked for that one by name. Raises
        :class:`KernelBlocked` while a guest has the device open.
        """
        here = self.driver(address)
        if here is not None and here == (driver or override):
            self._set_override(address, override)
            return
        self._rebind(address, override)
        if driver is not None and self.driver(address) != driver and self.has_driver(driver):
            self._rebind(address, driver)
            self._set_override(address, override)

    def has_driver(self, driver: str) -> bool:
        """Does this host have a PCI driver of that name now?"""
        return self._tree.names(f"bus/pci/drivers/{driver}") is not None

    def _rebind(self, address: PciAddress, override: str | None) -> None:
        """Take the device from its driver, and let the kernel choose one by this ``driver_override``.

        The driver is named: if something else has bound the device meanwhile, that one keeps it.
        """
        self._set_override(address, override)
        here = self.driver(address)
        if here is not None:
            try:
                self._write(address, f"bus/pci/drivers/{here}/unbind", str(address))
            except KernelRefused:
                if self.driver(address) == here:
                    raise
        if self.driver(address) is None:
            self._write(address, "bus/pci/drivers_probe", str(address))

    def bind_anew(self, address: PciAddress) -> None:
        """Unbind the device from its driver, reset it, and bind it to that driver again."""
        here, override = self.driver(address), self.override(address)
        if here is not None:
            self._write(address, f"{PCI_DEVICES}/{address}/driver/unbind", str(address))
        self.reset(address)
        self.return_to_driver(address, here, override if override == here else None)

    def _set_override(self, address: PciAddress, override: str | None) -> None:
        if self.override(address) != override:
            self._write(address, f"{PCI_DEVICES}/{address}/driver_override", override or "\n")

    def set_num_vfs(self, pf: PciAddress, count: int) -> None:
        """Write ``sriov_numvfs``; ``sriov_drivers_autoprobe`` stays as it is."""
        self._write(pf, f"{PCI_DEVICES}/{pf}/sriov_numvfs", str(count))

    def reset(self, address: PciAddress) -> bool:
        """Reset this function if that does not reset other functions too. Answers whether it was reset.

        Kernels before 5.15 do not show ``reset_method``: then the function is not reset.
        """
        methods = (self._tree.text(f"{PCI_DEVICES}/{address}/reset_method") or "").split()
        if _FUNCTION_LEVEL.isdisjoint(methods):
            return False
        self._write(address, f"{PCI_DEVICES}/{address}/reset", "1")
        return True

    def in_use(self, address: PciAddress) -> bool:
        """Does a process, usually a guest, have the device open through vfio?

        A vfio group can be open only once, so this tries to open it. Raises :class:`DriverError`.
        """
        group = self._tree.link(f"{PCI_DEVICES}/{address}/iommu_group")
        if group is None or not self.is_on_vfio(address):
            return False
        try:
            os.close(os.open(self._vfio / group, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            if error.errno == errno.EBUSY:
                return True
            if error.errno == errno.ENOENT:
                return False
            raise DriverError(f"cannot tell whether {address} is in use: {error}") from error
        return False

    def _write(self, address: PciAddress, path: str, text: str) -> None:
        if (reason := self.blocked().get(address)) is not None:
            raise KernelBlocked(f"{address} is {reason}")
        program = [sys.executable, "-I", "-S", write_attribute.__file__, str(self._tree.root / path), text]
        # In a group of its own: the signals of the agent's group are not for it.
        helper = subprocess.Popen(program, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603 - our own program
        try:
            code = helper.wait(self._timeout)
        except subprocess.TimeoutExpired:
            helper.kill()  # takes effect when the kernel answers; nothing waits for that
            with self._lock:
                self._waiting[address] = helper, path
            LOG.error("the kernel has not answered the write of %s to %s", text, path)  # noqa: TRY400 - nothing failed here
            raise KernelBlocked(
                f"{address} is blocked: the kernel has not answered a write to {path} "
                f"in {self._timeout:g} s: look for a guest that still has it or one of its VFs, or a VF of "
                "another port whose VFs are being removed"
            ) from None
        if code:
            raise KernelRefused(f"{address}: the kernel refused {text.strip()!r} for {path}: {_reason(code)}")


def _reason(code: int) -> str:
    return os.strerror(code) if code > 0 else f"the helper was ended by signal {-code}"
