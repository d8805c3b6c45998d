"""Give ports VFs when a claim wants one, and remove them when nobody has wanted one for a while.

The kernel changes the number of a port's VFs only through 0 (kernel docs, PCI/pci-iov-howto), which takes all
of them from their users. So the number is changed only while nobody has one of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.vfs_by_demand import entry_of, most_vfs, with_vfs_by_demand
from portclaim.common.rpc.agent_messages import StepDevice
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.port_control import PortControl
from portclaim.services.compute_agent.scanner import Scan, Scanner

LOG = logging.getLogger(__name__)


class Completed(NamedTuple):
    """A scan with the VFs that can be made, and which devices are not usable now, and why."""

    scan: Scan
    held_back: Mapping[PciAddress, str]


class VfsByDemand:
    """The ports of one host whose entry in device_spec has a range as ``num_vfs``. Threads may share one.

    With a driver that has no ``control``, it does nothing.
    """

    def __init__(self, scanner: Scanner, control: PortControl | None, device_spec: Sequence[str]) -> None:
        self._scanner = scanner
        self._control = control
        self._lock = threading.Lock()
        self._steps: Counter[PciAddress] = Counter()
        self._idle_since: dict[PciAddress, float] = {}
        self.take_device_spec(device_spec)

    def take_device_spec(self, device_spec: Sequence[str]) -> None:
        """Use these values, which are valid, from now on."""
        self._specs = DeviceSpecs.parse(device_spec, report_in_placement=True)

    @contextmanager
    def providing(self, device: StepDevice) -> Iterator[None]:
        """If the device is a VF of such a port, the port gets its VFs. In the block it keeps what it has.

        Raises :class:`DriverError` if the VF does not exist and cannot be made now.
        """
        if self._control is None:
            yield
            return
        port = PciAddress.parse(device.parent_address or device.address)
        with self._lock:
            self._steps[port] += 1
        try:
            with self._control.lock(port):  # idle VFs may be being removed
                if device.parent_address is not None:
                    self._make(self._control, port, PciAddress.parse(device.address))
            yield
        finally:
            with self._lock:
                self._steps[port] -= 1
                self._idle_since.pop(port, None)

    def make_again(self, port: PciAddress | None, vf: PciAddress) -> None:
        """Give a port its VFs after a restart of the host, because a claim has this VF.

        The caller has locked the port. Raises :class:`DriverError`.
        """
        if self._control is not None and port is not None and self._scanner.look(vf) is None:
            self._make(self._control, port, vf)

    def remove_idle(
        self, idle_for: float, clock: Callable[[], float] = time.monotonic
    ) -> Sequence[PciAddress]:
        """Remove the VFs of ports of which nobody has had one for so many seconds. Answers these ports.

        A port that has fewer than it keeps while it is idle gets them: an agent was killed before it wrote
        their number. A write may take long.
        """
        if self._control is None or not self._is_used:
            self._idle_since.clear()
            return ()
        changed = []
        for device in self._scanner.scan().devices:
            if entry_of(device, self._specs) is None:
                continue
            lock = self._control.lock(device.address)
            if not lock.acquire(blocking=False):
                continue  # a device of this tree is on its way
            try:
                if self._remove_if_idle(self._control, device.address, idle_for, clock()):
                    changed.append(device.address)
            except DriverError as error:
                LOG.warning("the idle VFs of %s were not removed: %s", device.address, error)
            finally:
                lock.release()
        return changed

    def completed(self, scan: Scan, held_back: Mapping[PciAddress, str]) -> Completed:
        """A scan with the VFs that its ports can be given, and the devices that are not usable now.

        ``held_back`` says which of those of the scan are not, and why.
        """
        if self._control is None or not self._is_used:
            return Completed(scan, held_back)
        devices = with_vfs_by_demand(scan.devices, self._specs)
        problems = {**scan.problems, **held_back}
        not_now = self._why_not_now(self._control, devices, problems)
        return Completed(Scan(devices, scan.problems), {**not_now, **held_back})

    def _why_not_now(
        self, control: PortControl, devices: Sequence[PciDevice], problems: Mapping[PciAddress, str]
    ) -> Mapping[PciAddress, str]:
        """The VFs among these devices that do not exist and cannot be made now, with the reason.

        A port that a claim has whole needs no reason.
        """
        ports = {device.parent for device in devices if not device.exists}
        reasons: dict[PciAddress | None, str] = {}
        for port in devices:
            if port.address in ports and not control.has_claim(port.address):
                reason = problems.get(port.address) or control.why_vfs_stay(port)
                if reason is not None:
                    reasons[port.address] = f"does not exist, and cannot be made now: {reason}"
        return {
            device.address: reasons[device.parent]
            for device in devices
            if not device.exists and device.parent in reasons
        }

    @property
    def _is_used(self) -> bool:
        return any(spec.most_vfs is not None for spec in self._specs.specs)

    def _range(self, port: PciAddress) -> tuple[PciDevice, int, int] | None:
        """The port as it is, and the least and most VFs of its entry; None: it has none by demand."""
        device = self._scanner.look(port)
        spec = None if device is None else entry_of(device, self._specs)
        if device is None or spec is None:
            return None
        return device, spec.num_vfs or 0, most_vfs(device, spec)

    def _make(self, control: PortControl, port: PciAddress, vf: PciAddress) -> None:
        """As many as the port can have at once: with one in use, the number cannot be changed any more."""
        found = self._range(port)
        if found is None or found[0].num_vfs >= found[2]:
            return
        device, _, most = found
        if (reason := control.why_vfs_stay(device)) is not None:
            if self._scanner.look(vf) is not None:
                return
            raise DriverError(f"{vf} does not exist, and cannot be made now: {reason}")
        LOG.info("%s gets %s VFs: a claim wants %s", port, most, vf)
        if device.num_vfs:
            control.set_num_vfs(port, 0)
        control.set_num_vfs(port, most)
        if self._scanner.look(vf) is None:
            raise DriverError(
                f"{vf} does not exist: {port} has its VFs at other addresses than before they were made. "
                "Write a number as num_vfs for this card, and no range"
            )

    def _remove_if_idle(self, control: PortControl, port: PciAddress, idle_for: float, now: float) -> bool:
        found = self._range(port)
        if found is None:
            return False
        device, least, most = found
        least = min(least, most)
        if not most or device.num_vfs == least:  # 0: removed VFs could not be offered again
            return False
        is_idle = control.why_vfs_stay(device) is None
        with self._lock:
            if self._steps[port] or not is_idle:
                self._idle_since.pop(port, None)
                return False
            if now - self._idle_since.setdefault(port, now) < idle_for:
                return False
            del self._idle_since[port]
        LOG.info(
            "%s gets %s VFs instead of %s: nobody has had one for %g s", port, least, device.num_vfs, idle_for
        )
        if device.num_vfs:
            control.set_num_vfs(port, 0)
        if least:
            control.set_num_vfs(port, least)
        return True
