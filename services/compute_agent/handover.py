"""Hand devices over to instances, and restore them to the host: the part that all drivers of real hosts
share.

The host itself shows whether a device is on vfio-pci. ``handover.sqlite`` keeps what the host does not show:
for which claim the device was handed over, which driver it had, and how many VFs a port had. A row is written
before the device is handed over and stays until the device is restored, so that a killed agent can continue.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import PciDevice
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.host_use import check_group, check_not_used_by_host, group_members
from portclaim.services.compute_agent.kernel import Kernel
from portclaim.services.compute_agent.netlink import default_route_interfaces
from portclaim.services.compute_agent.restore import Restorer, contradicts
from portclaim.services.compute_agent.scanner import ScanError, Scanner
from portclaim.services.compute_agent.store import LocalStore
from portclaim.services.compute_agent.sysfs import SysfsTree

LOG = logging.getLogger(__name__)

RECORD = "handover.sqlite"
FIRST_RETRY, LAST_RETRY = 5.0, 300.0  # seconds between two tries to restore devices
_SCHEMA = """
CREATE TABLE IF NOT EXISTS handed_over (
    address TEXT PRIMARY KEY, parent_address TEXT,
    claim_id TEXT, instance_id TEXT,          -- NULL: the guest has released it, and it is not restored
    driver TEXT, override TEXT,               -- its driver and driver_override before
    num_vfs INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A device that was handed over. ``claim_id`` and ``instance_id`` are None while it is being restored."""

    address: PciAddress
    parent: PciAddress | None
    claim_id: UUID | None
    instance_id: UUID | None
    driver: str | None
    override: str | None
    num_vfs: int

    @property
    def port(self) -> PciAddress:
        """The PF of a VF; for any other device, the device itself."""
        return self.parent or self.address


class Handover:
    """Hands devices over to instances, and restores them. Threads may share one.

    A device that cannot be restored is listed by :meth:`problems` and tried again, at growing intervals.
    """

    def __init__(self, tree: SysfsTree, scanner: Scanner, kernel: Kernel, restorer: Restorer) -> None:
        self._tree = tree
        self._scanner = scanner
        self._kernel = kernel
        self._restorer = restorer
        self._lock = threading.Lock()
        self._ports: defaultdict[PciAddress, threading.Lock] = defaultdict(threading.Lock)
        self._failures: dict[PciAddress, str] = {}
        self._ending = threading.Event()
        self._retrying = threading.Thread(target=self._retry, name="restore", daemon=True)

    def start(self, state_path: Path) -> None:
        """Open the record and finish what was interrupted, now or with later tries."""
        self._store = LocalStore(state_path / RECORD, _SCHEMA)
        for row in self.handed_over():
            try:
                if row.claim_id is not None:
                    self._detach_from_host(row)
            except DriverError as error:
                LOG.error("an interrupted handover could not be finished: %s", error)  # noqa: TRY400 - the message says it all
        for row in self.handed_over():
            if row.claim_id is None:
                self._restore(row)
        self._retrying.start()

    def stop(self) -> None:
        """Stop trying, and close the record."""
        self._ending.set()
        self._retrying.join()
        self._store.close()

    def handed_over(self) -> Sequence[HandedOver]:
        """All devices that were handed over and are not restored."""
        with self._store.transaction() as sql:
            rows = sql.execute("SELECT * FROM handed_over ORDER BY address").fetchall()
        return [
            HandedOver(
                PciAddress.parse(row["address"]),
                None if row["parent_address"] is None else PciAddress.parse(row["parent_address"]),
                None if row["claim_id"] is None else UUID(row["claim_id"]),
                None if row["instance_id"] is None else UUID(row["instance_id"]),
                row["driver"],
                row["override"],
                row["num_vfs"],
            )
            for row in rows
        ]

    def find(self, address: PciAddress) -> HandedOver | None:
        """The record of a device; None: it was not handed over."""
        return next((row for row in self.handed_over() if row.address == address), None)

    def vfs(self, address: PciAddress) -> Sequence[PciAddress]:
        """The VFs that the host shows of a port; empty for any other device."""
        return self._scanner.vfs(address)

    def problems(self) -> Mapping[PciAddress, str]:
        """Devices that are not usable now, with the reason: the kernel does not answer, or they are not
        restored.
        """
        with self._lock:
            failures = dict(self._failures)
        return {**failures, **self._kernel.blocked()}

    def hand_over(self, step: Step, address: PciAddress) -> None:
        """Take the device from the host for the step's instance: remove a PF's VFs, bind to vfio-pci, reset.

        Other devices of the step in the same IOMMU group are handed over too. Raises :class:`DriverError`
        with the reason why the device must not or could not be handed over.
        """
        leaving = {PciAddress.parse(device.address) for device in step.devices}
        for each in sorted((group_members(self._tree, address) & leaving) | {address}):
            with self._lock:
                row = self._register(step, each, leaving)
            with self._ports[row.port]:
                self._detach_from_host(row)

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
            self._write(
                HandedOver(
                    address, device.parent, step.claim_id, step.instance_id, driver, None, device.num_vfs
                )
            )

    def take_back(self, address: PciAddress) -> None:
        """Take the device back from its instance and restore it.

        Raises :class:`DriverError` while a guest has it open.
        """
        if self._kernel.in_use(address):
            raise DriverError(
                f"{address} is still open in a guest: stop the guest or detach the device from it"
            )
        with self._store.transaction() as sql:
            sql.execute(
                "UPDATE handed_over SET claim_id = NULL, instance_id = NULL WHERE address = ?",
                (str(address),),
            )
        row = self.find(address)
        if row is not None:
            self._restore(row)

    def _register(self, step: Step, address: PciAddress, leaving: set[PciAddress]) -> HandedOver:
        """Record that the device is handed over, if it may be."""
        device = self._scanner.look(address)
        if device is None:
            raise DriverError(f"{address} is not on this host")
        rows = {row.address: row for row in self.handed_over()}
        known = rows.get(address)
        if known is not None and known.claim_id == step.claim_id:
            return known
        held = {row.address: row for row in rows.values() if row.claim_id is not None}
        self._check(device, held, step.instance_id, leaving)
        row = HandedOver(
            address,
            device.parent,
            step.claim_id,
            step.instance_id,
            known.driver if known else device.driver,
            known.override if known else self._override(device),
            known.num_vfs if known else device.num_vfs,
        )
        self._write(row)
        self._failures.pop(address, None)
        return row

    def _override(self, device: PciDevice) -> str | None:
        """The ``driver_override`` to restore: none that contradicts the driver that the device is on."""
        override = self._kernel.override(device.address)
        if contradicts(override, device.driver):
            LOG.warning(
                "%s has driver_override %s, but is on %s: it will return to %s without driver_override",
                device.address,
                override,
                device.driver,
                device.driver,
            )
            return None
        return override

    def _write(self, row: HandedOver) -> None:
        values = row.address, row.parent, row.claim_id, row.instance_id, row.driver, row.override
        texts = [None if value is None else str(value) for value in values]
        with self._store.transaction() as sql:
            sql.execute(
                "INSERT OR REPLACE INTO handed_over VALUES (?, ?, ?, ?, ?, ?, ?)", (*texts, row.num_vfs)
            )
            # A PF that is handed over loses its VFs: none of these has to be restored.
            sql.execute(
                "DELETE FROM handed_over WHERE parent_address = ? AND claim_id IS NULL", (str(row.address),)
            )

    def _check(
        self,
        device: PciDevice,
        held: Mapping[PciAddress, HandedOver],
        instance_id: UUID,
        leaving: set[PciAddress],
    ) -> None:
        for holder in held.values():
            if device.address in {holder.address, holder.parent} or device.parent == holder.address:
                raise DriverError(f"{holder.address} is already in instance {holder.instance_id}")
        if not self._kernel.is_on_vfio(device.address) and not self._restorer.is_managed(device.address):
            raise DriverError(
                f"{device.address} is on {device.driver or 'no driver'}, and its device_spec entry says "
                "managed: no: bind it to vfio-pci or a variant of it, or leave managed out"
            )
        theirs = {row.address for row in held.values() if row.instance_id == instance_id}
        check_group(self._tree, device.address, leaving | theirs, held.keys() - theirs)
        default_routes = default_route_interfaces()
        for function in (device.address, *self._scanner.vfs(device.address)):
            check_not_used_by_host(self._tree, function, default_routes)
            if self._kernel.in_use(function) and theirs.isdisjoint(group_members(self._tree, function)):
                raise DriverError(
                    f"{function} is open in a process that Portclaim did not start: see lsof /dev/vfio/*"
                )

    def _detach_from_host(self, row: HandedOver) -> None:
        if not self._kernel.is_on_vfio(row.address):
            if self._scanner.vfs(row.address):
                self._kernel.set_num_vfs(row.address, 0)
            self._kernel.bind_to_vfio(row.address)
        if not self._kernel.in_use(row.address):  # never reset a device that a guest already uses
            self._kernel.reset(row.address)

    def _restore(self, row: HandedOver) -> None:
        """Restore one device, or record why that failed."""
        with self._ports[row.port]:
            now = self.find(row.address)
            if now is None or now.claim_id is not None:
                return  # restored, or handed over again, meanwhile
            try:
                if not self._ended_with_its_port(row):
                    self._restorer.restore(row.address, row.driver, row.override, row.num_vfs)
            except (DriverError, ScanError, OSError) as error:
                LOG.error("a device is not restored: %s", error)  # noqa: TRY400 - the message says it all
                with self._lock:
                    self._failures[row.address] = f"not restored after its guest released it: {error}"
                return
            with self._store.transaction() as sql:
                sql.execute(
                    "DELETE FROM handed_over WHERE address = ? AND claim_id IS NULL", (str(row.address),)
                )
            with self._lock:
                self._failures.pop(row.address, None)

    def _ended_with_its_port(self, row: HandedOver) -> bool:
        """Is it a VF that no longer exists? There is nothing to restore then."""
        return row.parent is not None and self._scanner.look(row.address) is None

    def _retry(self) -> None:
        pause = FIRST_RETRY
        while not self._ending.wait(pause):
            left = [
                row for row in self.handed_over() if row.claim_id is None and row.address in self._failures
            ]
            for row in left:
                self._restore(row)
            pause = min(pause * 2, LAST_RETRY) if left else FIRST_RETRY
