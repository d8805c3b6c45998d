"""Devices leave this host for guests and come home: the part that all real hypervisors share.

The host itself says where a device is: on vfio-pci or not. What no kernel remembers is in
``away.sqlite``, written before a device leaves: for whom it left, which driver had it, and how many
VFs a port had. A row stays until the device is home again, so that a killed agent can go on.
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
from portclaim.common.rpc.messages import Step
from portclaim.services.compute_agent.custody import check_group, check_not_the_hosts_own, group_mates
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.homecoming import Homecoming
from portclaim.services.compute_agent.kernel import VFIO, Kernel
from portclaim.services.compute_agent.netlink import default_route_interfaces
from portclaim.services.compute_agent.scanner import ScanError, Scanner
from portclaim.services.compute_agent.store import LocalStore
from portclaim.services.compute_agent.sysfs import SysfsTree

LOG = logging.getLogger(__name__)

RECORD = "away.sqlite"
FIRST_RETRY, LAST_RETRY = 5.0, 300.0  # seconds between two tries to bring a device home
_SCHEMA = """
CREATE TABLE IF NOT EXISTS away (
    address TEXT PRIMARY KEY, parent_address TEXT,
    claim_id TEXT, instance_id TEXT,          -- NULL: no guest's any more, not yet the host's again
    driver TEXT, override TEXT,               -- who had it before, and whom driver_override named
    num_vfs INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Away:
    """A device that is not the host's now. ``claim_id`` and ``instance_id`` are None on its way home."""

    address: PciAddress
    parent: PciAddress | None
    claim_id: UUID | None
    instance_id: UUID | None
    driver: str | None
    override: str | None
    num_vfs: int

    @property
    def port(self) -> PciAddress:
        """The PF whose tree it belongs to, or the device itself."""
        return self.parent or self.address


class Handover:
    """Lends devices to instances and brings them home; safe to call from several threads.

    What does not come home is reported by :meth:`troubles` and tried again, ever more rarely.
    """

    def __init__(self, tree: SysfsTree, scanner: Scanner, kernel: Kernel, homecoming: Homecoming) -> None:
        self._tree = tree
        self._scanner = scanner
        self._kernel = kernel
        self._homecoming = homecoming
        self._lock = threading.Lock()
        self._ports: defaultdict[PciAddress, threading.Lock] = defaultdict(threading.Lock)
        self._failures: dict[PciAddress, str] = {}
        self._ending = threading.Event()
        self._retrying = threading.Thread(target=self._retry, name="homecoming", daemon=True)

    def start(self, state_path: Path) -> None:
        """Open the record, finish what was begun, and keep trying what cannot be finished now."""
        self._store = LocalStore(state_path / RECORD, _SCHEMA)
        for row in self.away():
            try:
                if row.claim_id is not None:
                    self._send(row)
            except DriverError as error:
                LOG.error("left as it is: %s", error)  # noqa: TRY400 - the message says it all
        for row in self.away():
            if row.claim_id is None:
                self._come_home(row)
        self._retrying.start()

    def stop(self) -> None:
        """Try no more; close the record."""
        self._ending.set()
        self._retrying.join()
        self._store.close()

    def away(self) -> Sequence[Away]:
        """All devices that are not the host's."""
        with self._store.transaction() as sql:
            rows = sql.execute("SELECT * FROM away ORDER BY address").fetchall()
        return [
            Away(
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

    def find(self, address: PciAddress) -> Away | None:
        """The device's row, if it is away."""
        return next((row for row in self.away() if row.address == address), None)

    def vfs(self, address: PciAddress) -> Sequence[PciAddress]:
        """The VFs that the host shows of a port; none of what is no port."""
        return self._scanner.vfs(address)

    def troubles(self) -> Mapping[PciAddress, str]:
        """What is not usable now, and why: stuck in the kernel, or not come home."""
        with self._lock:
            failures = dict(self._failures)
        return {**failures, **self._kernel.blocked()}

    def lend(self, step: Step, address: PciAddress) -> None:
        """Take the device from the host for the step's instance: on vfio-pci, reset, a PF without VFs.

        Functions of its IOMMU group that the same step is about go with it. Raises
        :class:`DriverError`, with the reason why it must not or could not leave.
        """
        going = {PciAddress.parse(device.address) for device in step.devices}
        for each in sorted((group_mates(self._tree, address) & going) | {address}):
            with self._lock:
                row = self._register(step, each, going)
            with self._ports[row.port]:
                self._send(row)

    def bring_home(self, address: PciAddress) -> None:
        """Give the device back to the host. Raises :class:`DriverError` only while somebody has it open."""
        if self._kernel.in_use(address):
            raise DriverError(f"{address} is still open in a guest: end the guest, or have it let go")
        with self._store.transaction() as sql:
            sql.execute(
                "UPDATE away SET claim_id = NULL, instance_id = NULL WHERE address = ?", (str(address),)
            )
        row = self.find(address)
        if row is not None:
            self._come_home(row)

    def _register(self, step: Step, address: PciAddress, going: set[PciAddress]) -> Away:
        """Write down that the device leaves, if it may."""
        device = self._scanner.look(address)
        if device is None:
            raise DriverError(f"{address} is not on this host")
        rows = {row.address: row for row in self.away()}
        known = rows.get(address)
        if known is not None and known.claim_id == step.claim_id:
            return known
        lent = {row.address: row for row in rows.values() if row.claim_id is not None}
        self._check(device, lent, step.instance_id, going)
        row = Away(
            address,
            device.parent,
            step.claim_id,
            step.instance_id,
            known.driver if known else device.driver,
            known.override if known else self._kernel.override(address),
            known.num_vfs if known else device.num_vfs,
        )
        values = row.address, row.parent, row.claim_id, row.instance_id, row.driver, row.override
        texts = [None if value is None else str(value) for value in values]
        with self._store.transaction() as sql:
            sql.execute("INSERT OR REPLACE INTO away VALUES (?, ?, ?, ?, ?, ?, ?)", (*texts, row.num_vfs))
            # VFs on their way home end with the port; made anew they begin at home.
            sql.execute("DELETE FROM away WHERE parent_address = ? AND claim_id IS NULL", (str(address),))
        self._failures.pop(address, None)
        return row

    def _check(
        self, device: PciDevice, lent: Mapping[PciAddress, Away], instance_id: UUID, going: set[PciAddress]
    ) -> None:
        for holder in lent.values():
            if device.address in {holder.address, holder.parent} or device.parent == holder.address:
                raise DriverError(f"{holder.address} is in instance {holder.instance_id} already")
        theirs = {row.address for row in lent.values() if row.instance_id == instance_id}
        check_group(self._tree, device.address, going | theirs, lent.keys() - theirs)
        default_routes = default_route_interfaces()
        for function in (device.address, *self._scanner.vfs(device.address)):
            check_not_the_hosts_own(self._tree, function, default_routes)
            if self._kernel.in_use(function) and theirs.isdisjoint(group_mates(self._tree, function)):
                raise DriverError(f"{function} is in use by a process that Portclaim knows nothing of")

    def _send(self, row: Away) -> None:
        if self._kernel.driver(row.address) != VFIO:
            if self._scanner.vfs(row.address):
                self._kernel.set_num_vfs(row.address, 0)
            self._kernel.lend(row.address)
        if not self._kernel.in_use(row.address):  # a guest that has it already is not to be surprised
            self._kernel.reset(row.address)

    def _come_home(self, row: Away) -> None:
        """Bring one device home, or know why not."""
        with self._ports[row.port]:
            now = self.find(row.address)
            if now is None or now.claim_id is not None:
                return  # home, or lent again, since somebody looked
            try:
                if not self._ended_with_its_port(row):
                    self._homecoming.bring(row.address, row.driver, row.override, row.num_vfs)
            except (DriverError, ScanError, OSError) as error:
                LOG.error("not home: %s", error)  # noqa: TRY400 - the message says it all
                with self._lock:
                    self._failures[row.address] = f"not come home from its guest: {error}"
                return
            with self._store.transaction() as sql:
                sql.execute("DELETE FROM away WHERE address = ? AND claim_id IS NULL", (str(row.address),))
            with self._lock:
                self._failures.pop(row.address, None)

    def _ended_with_its_port(self, row: Away) -> bool:
        """Is it a VF that is no more? Made anew it begins at home."""
        return row.parent is not None and self._scanner.look(row.address) is None

    def _retry(self) -> None:
        pause = FIRST_RETRY
        while not self._ending.wait(pause):
            left = [row for row in self.away() if row.claim_id is None and row.address in self._failures]
            for row in left:
                self._come_home(row)
            pause = min(pause * 2, LAST_RETRY) if left else FIRST_RETRY
