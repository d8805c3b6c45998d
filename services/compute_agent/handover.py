"""Hand devices over to instances, and restore them to the host: the part that all drivers of real hosts
share.

The host itself shows whether a device is on vfio-pci. The record keeps what the host does not show. What the
two say is compared: at the start, after an event of the kernel, and when the host is reported.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.handover_check import HandoverCheck
from portclaim.services.compute_agent.handover_record import HandedOver, HandoverRecord, held_by_claims
from portclaim.services.compute_agent.host_use import UsedByHost, group_members
from portclaim.services.compute_agent.kernel import Kernel
from portclaim.services.compute_agent.lent_devices import LentDevices
from portclaim.services.compute_agent.refused_devices import RefusedDevices
from portclaim.services.compute_agent.restore import Restorer, override_to_restore
from portclaim.services.compute_agent.retries import Retries
from portclaim.services.compute_agent.scanner import ScanError, Scanner
from portclaim.services.compute_agent.stuck_ports import StuckPorts
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.vf_network import VfNetwork

LOG = logging.getLogger(__name__)


class Handover:
    """Hands devices over to instances, and restores them. Threads may share one.

    A device that cannot be restored is listed by :meth:`problems` and tried again, at growing intervals. So
    is a device of a claim that something has taken from vfio-pci: it is handed over again.
    """

    def __init__(
        self, tree: SysfsTree, scanner: Scanner, kernel: Kernel, restorer: Restorer, network: VfNetwork
    ) -> None:
        self._tree = tree
        self._scanner = scanner
        self._kernel = kernel
        self._restorer = restorer
        self._network = network
        self._lent = LentDevices(tree, scanner, kernel)
        self._check = HandoverCheck(tree, scanner, kernel, restorer)
        self._refused = RefusedDevices(self._check.check_not_used_by_host)
        self.stuck_ports = StuckPorts(kernel)
        self._lock = threading.Lock()
        self.ports: defaultdict[PciAddress, threading.Lock] = defaultdict(threading.Lock)
        self._failures: dict[PciAddress, str] = {}
        self._in_hand: set[PciAddress] = set()
        self._retries = Retries(self._try_again, self._lent.look)
        self._tell: Callable[[], None] = lambda: None
        self.make_vf: Callable[[HandedOver], None] = lambda _row: None

    def start(self, state_path: Path) -> None:
        """Open the record and finish what was interrupted, now or with later tries."""
        self._record = HandoverRecord(state_path)
        self._network.start(state_path)
        for row in self.handed_over():
            if row.claim_id is not None:
                self._hand_over_again(row, is_start=True)
        for row in self.handed_over():
            if row.claim_id is None:
                self._restore(row)
        self._retries.start()

    def stop(self) -> None:
        """Stop trying, and close the record."""
        self._retries.end()
        self._network.stop()
        self._record.close()

    def follow(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` when a claim's device was lost, and when a later try has succeeded with a device."""
        self._tell = tell

    def handed_over(self) -> Sequence[HandedOver]:
        """All devices that were handed over and are not restored."""
        return self._record.rows()

    def find(self, address: PciAddress) -> HandedOver | None:
        """The record of a device; None: it was not handed over."""
        return self._record.find(address)

    def is_lent(self, row: HandedOver) -> bool:
        """Is this device where its claim needs it: on vfio-pci, and the same device as then?"""
        return self._lent.trouble(row) is None

    def vfs(self, address: PciAddress) -> Sequence[PciAddress]:
        """The VFs that the host shows of a port; empty for any other device."""
        return self._scanner.vfs(address)

    def problems(self) -> Mapping[PciAddress, str]:
        """Devices that are not usable now, with the reason.

        The kernel does not answer, or they are not restored, or a claim has lost them, or the host uses them
        and they were refused for that, or they are on a card that was elsewhere when it was handed over.
        """
        lost = self._lost(self.handed_over())
        with self._lock:
            failures = dict(self._failures)
        return {
            **self._refused.problems(),
            **self._lent.on_moved_cards(lost),
            **{row.address: f"{reason} (claim {row.claim_id})" for row, reason in lost.items()},
            **failures,
            **self._kernel.blocked(),
        }

    def changed(self, addresses: Collection[PciAddress] | None) -> None:
        """The kernel has told of these devices; None: perhaps of all. Try now what has to be tried."""
        rows = self.handed_over()
        if addresses is not None:
            rows = [row for row in rows if not {row.address, row.port}.isdisjoint(addresses)]
        if self._lost(rows):
            self._tell()
        self._retries.hurry([row.address for row in rows])

    def hand_over(self, step: Step, address: PciAddress) -> None:
        """Take the device from the host for the step's instance: remove a PF's VFs, bind to vfio-pci, reset.

        Other devices of the step in the same IOMMU group are handed over too. Raises :class:`DriverError`
        with the reason why the device must not or could not be handed over.
        """
        leaving = {PciAddress.parse(device.address) for device in step.devices}
        for each in self.together(step, address):
            with self.in_hand(each):
                with self._lock:
                    row = self._register(step, each, leaving)
                with self.ports[row.port]:
                    self._network.lend_port(step, each)
                    self._detach_from_host(row)
                    if not self._kernel.in_use(each):  # else it was set before
                        self._network.lend(step, each)

    def together(self, step: Step, address: PciAddress) -> Sequence[PciAddress]:
        """The devices of the step that are in the IOMMU group of this one, itself included."""
        group = self._scanner.look(address) and group_members(self._tree, address)
        return sorted(
            ({PciAddress.parse(device.address) for device in step.devices} & (group or set())) | {address}
        )

    @contextmanager
    def in_hand(self, *addresses: PciAddress) -> Iterator[None]:
        """What happens to these devices in the block is no loss: the agent or libvirt does it."""
        with self._lock:
            taken = set(addresses) - self._in_hand
            self._in_hand |= taken
        try:
            yield
        finally:
            with self._lock:
                self._in_hand -= taken

    def adopt(self, step: Step, address: PciAddress) -> None:
        """Record a device that the step's instance has already, as it is. Nothing is written to the device.

        Does nothing if the device is recorded, or is not on this host. A device on vfio-pci, or on
        a variant of it, does not show which driver it had: the kernel chooses one when it is restored.
        """
        with self._lock:
            device = self._scanner.look(address)
            if device is None or self.find(address) is not None:
                return
            driver = None if self._kernel.is_on_vfio(address) else device.driver
            self._record.write(self._lent.row(step, device, driver, None, device.num_vfs))
            self._network.adopt(step, device)

    def take_back(self, address: PciAddress) -> None:
        """Take the device back from its instance and restore it.

        Raises :class:`DriverError` while a guest has it open.
        """
        self._check.check_released(address, self.handed_over())
        self._record.release(address)
        if (row := self.find(address)) is not None:
            self._restore(row)

    def _register(self, step: Step, address: PciAddress, leaving: set[PciAddress]) -> HandedOver:
        """Record that the device is handed over, if it may be."""
        device = self._scanner.look(address)
        if device is None:
            raise DriverError(f"{address} is not on this host")
        rows = {row.address: row for row in self.handed_over()}
        known = rows.get(address)
        if known is not None and known.claim_id == step.claim_id:
            self._check.check_again(known, rows.values())
            return known
        try:
            self._check.check(device, held_by_claims(rows.values()), step.instance_id, leaving)
        except UsedByHost:
            self._refused.add(address)
            raise
        if known is None or self._lent.is_another_card(known):
            row = self._lent.row(
                step,
                device,
                device.driver,
                override_to_restore(device, self._kernel.override(address)),
                device.num_vfs,
            )
        else:
            row = self._lent.row(step, device, known.driver, known.override, known.num_vfs)
        self._record.write(row)
        self._failures.pop(address, None)
        self._retries.forget(address)
        return row

    def _detach_from_host(self, row: HandedOver) -> None:
        if (reason := self._lent.why_another(row)) is not None:
            raise DriverError(reason)
        if not self._kernel.is_on_vfio(row.address):
            if self._scanner.vfs(row.address):
                self.stuck_ports.check(row.address, self._scanner.scan(), self.handed_over())
                self._kernel.set_num_vfs(row.address, 0)
            self._kernel.bind_to_vfio(row.address)
        if not self._kernel.in_use(row.address):  # never reset a device that a guest already uses
            self._kernel.reset(row.address)

    def _lost(self, rows: Collection[HandedOver]) -> Mapping[HandedOver, str]:
        """The devices of claims that are not where their claims need them. Have them handed over again."""
        lost = {}
        for row in rows:
            if row.claim_id is None or row.address in self._in_hand:
                continue
            if (reason := self._lent.trouble(row)) is not None:
                lost[row] = reason
                self._retries.add(row.address, at_once=True)
        return lost

    def _try_again(self, address: PciAddress) -> bool:
        row = self.find(address)
        if row is None:
            return True
        is_done = self._restore(row) if row.claim_id is None else self._hand_over_again(row)
        if is_done:
            self._tell()
        return is_done

    def _hand_over_again(self, row: HandedOver, *, is_start: bool = False) -> bool:
        """Hand over the device of a claim, unless it is so. Answers whether it is.

        ``is_start``: the agent may have been killed in the middle of it.
        """
        with self.ports[row.port]:
            now = self.find(row.address)
            if now is None or now.claim_id != row.claim_id or row.address in self._in_hand:
                return True  # restored, or handed over for another claim, meanwhile
            try:
                reason = self._lent.trouble(row)
                if reason is not None or is_start:
                    self.make_vf(row)
                    self._check.check_again(row, self.handed_over())
                    self._detach_from_host(row)
                    self._network.lend_again(row.address, is_open=self._kernel.in_use(row.address))
                    if (now := self._lent.as_it_is(row)) != row:
                        self._record.write(now)
            except (DriverError, ScanError, OSError, sqlite3.Error) as error:
                LOG.error("claim %s cannot have its device: %s", row.claim_id, error)  # noqa: TRY400 - the message says it all
                self._retries.add(row.address)
                return False
        if reason is not None:
            LOG.warning("claim %s has its device again: %s", row.claim_id, reason)
        return True

    def _restore(self, row: HandedOver) -> bool:
        """Restore one device, or record why that failed. Answers whether nothing is left to do."""
        with self.ports[row.port]:
            now = self.find(row.address)
            if now is None or now.claim_id is not None:
                return True  # restored, or handed over again, meanwhile
            try:
                if (reason := self._lent.why_another(row)) is not None:
                    LOG.warning("nothing is restored: %s", reason)
                    self._network.forget(row.address)
                else:
                    self._network.take_back(row.address)
                    if not self._lent.ended_with_its_port(row):
                        self._restorer.restore(row.address, row.driver, row.override, row.num_vfs)
                        self._network.take_back_port(row.address)
                self._record.forget(row.address)
            except (DriverError, ScanError, OSError, sqlite3.Error) as error:
                LOG.error("a device is not restored: %s", error)  # noqa: TRY400 - the message says it all
                with self._lock:
                    self._failures[row.address] = f"not restored after its guest released it: {error}"
                self._retries.add(row.address)
                return False
            with self._lock:
                self._failures.pop(row.address, None)
            return True
