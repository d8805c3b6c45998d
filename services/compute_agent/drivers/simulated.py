"""A simulated hypervisor on a simulated host. It changes the host's tree and keeps a record.

The section ``[simulated]`` configures it. At the start it builds the host if there is none yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from oslo_config import cfg

from portclaim.common.option_groups import register
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.drivers.arrivals import Arrivals
from portclaim.services.compute_agent.drivers.base import (
    Attachment,
    DriverError,
    HypervisorDriver,
)
from portclaim.services.compute_agent.drivers.faults import suffer
from portclaim.services.compute_agent.drivers.simulated_guests import (
    RECORD,
    SCHEMA,
    GuestChanges,
    log_effect,
    plug,
    unplug,
)
from portclaim.services.compute_agent.drivers.simulated_ports import SimulatedPorts
from portclaim.services.compute_agent.port_control import PortControl
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from portclaim.services.compute_agent.simulation import VFIO, NotSimulated, SimulatedTree
from portclaim.services.compute_agent.store import LocalStore

LOG = logging.getLogger(__name__)

GROUP = cfg.OptGroup("simulated", "The host that driver `simulated` builds where sysfs_root is missing")
OPTIONS = [
    cfg.IntOpt("ports", default=2, min=0, max=64, help="SR-IOV ports (PFs)."),
    cfg.IntOpt("vfs_per_port", default=8, min=0, max=256, help="VFs that each port can have."),
    cfg.IntOpt("num_vfs", min=0, max=256, help="VFs that each port has at first. Not set: all."),
    cfg.IntOpt("accelerators", default=1, min=0, max=64, help="Devices without SR-IOV."),
    cfg.IntOpt("numa_nodes", default=1, min=1, max=8, help="NUMA nodes, with one socket each."),
    cfg.StrOpt(
        "guests",
        default="any",
        choices=[
            ("any", "Every instance is on this host."),
            ("defined", "An instance is on this host after it was defined. Tests define instances."),
        ],
        help="Which instances the simulated hypervisor has.",
    ),
    cfg.BoolOpt("network_settings", default=False, help="Take network settings of claims, and record them."),
]

FAULTS = "faults.json"


def list_opts() -> list[tuple[cfg.OptGroup, Sequence[cfg.Opt]]]:
    """The options of this driver, for oslo.config's generators."""
    return [(GROUP, OPTIONS)]


class SimulatedDriver(HypervisorDriver):
    """Keeps in ``hypervisor.sqlite`` which instance has which device, and every effect (table ``effects``).

    It changes the record first, then the tree. After a crash, the next start changes the tree.
    ``faults.json`` in the same directory makes calls slow or fail; see :class:`~.faults.Fault`.
    """

    _record: LocalStore
    _changes: GuestChanges | None = None
    _arrivals: Arrivals

    def __init__(self, conf: cfg.ConfigOpts, state_path: Path) -> None:
        super().__init__(conf, state_path)
        register(conf, OPTIONS, GROUP)
        self._root = Path(conf.compute_agent.sysfs_root)
        self._host = conf.host
        shape = conf.simulated
        self._has_any_guest = shape.guests == "any"
        self._shape = HostShape(
            shape.ports, shape.vfs_per_port, shape.num_vfs, shape.accelerators, shape.numa_nodes
        )
        self._ports = SimulatedPorts(
            self._open, self._not_free, lambda: {row.address for row in self.handed_over()}
        )

    @property
    def sets_network(self) -> bool:
        """Is it switched on?"""
        return bool(self.conf.simulated.network_settings)

    def start(self) -> None:
        """Open or build the host, and make its tree agree with the record."""
        if not self._root.exists():
            LOG.info("building a simulated host at %s: %s", self._root, self._shape)
            build_host(self._root, self._shape, self._host)
        self._record = LocalStore(self.state_path / RECORD, SCHEMA)
        self._arrivals = Arrivals()
        with self._record.transaction() as sql:
            attached = sql.execute(
                "SELECT address FROM attachments UNION SELECT address FROM prepared ORDER BY address"
            ).fetchall()
            returning = sql.execute("SELECT address FROM restoring ORDER BY address").fetchall()
        for move, rows in ((self._give, attached), (self._take_back, returning)):
            for row in rows:
                try:
                    move(row["address"])
                except DriverError as error:
                    LOG.error("the tree could not be made to agree with the record: %s", error)  # noqa: TRY400 - the message says it all

    def stop(self) -> None:
        """Close the record."""
        if self._changes is not None:
            self._changes.end()
        self._record.close()

    def watch(self, changed: Callable[[UUID | None], None]) -> None:
        """Hear of the guests that are defined."""
        if not self._has_any_guest:
            self._changes = GuestChanges(self.state_path, changed)
            self._changes.start()
            changed(None)  # for those that came before

    def attachments(self) -> Sequence[Attachment]:
        """The devices that guests have."""
        return self._held("SELECT address, instance_id, claim_id FROM attachments")

    def handed_over(self) -> Sequence[Attachment]:
        """The devices that were prepared, whether or not a guest has them."""
        return self._held(
            "SELECT address, instance_id, claim_id FROM attachments WHERE claim_id IS NOT NULL"
            " UNION ALL SELECT address, instance_id, claim_id FROM prepared"
        )

    @property
    def ports(self) -> PortControl:
        """Those of the simulated tree."""
        return self._ports

    def _not_free(self) -> frozenset[PciAddress]:
        with self._record.transaction() as sql:
            rows = sql.execute(
                "SELECT address FROM attachments UNION SELECT address FROM prepared"
                " UNION SELECT address FROM restoring"
            ).fetchall()
        return frozenset(PciAddress.parse(row["address"]) for row in rows)

    def _held(self, query: str) -> Sequence[Attachment]:
        with self._record.transaction() as sql:
            rows = sql.execute(query).fetchall()
        return [
            Attachment(
                PciAddress.parse(row["address"]),
                UUID(row["instance_id"]),
                None if row["claim_id"] is None else UUID(row["claim_id"]),
            )
            for row in rows
        ]

    def adopt(self, step: Step, device: StepDevice) -> None:
        """Record the claim of a device that the instance has without one."""
        with self._record.transaction() as sql:
            sql.execute(
                "UPDATE attachments SET claim_id = ?"
                " WHERE address = ? AND instance_id = ? AND claim_id IS NULL",
                (str(step.claim_id), device.address, str(step.instance_id)),
            )

    def prepare(self, step: Step, device: StepDevice) -> None:
        """Record that the claim has the device, then take the device from the host's drivers."""
        suffer(self.state_path / FAULTS, "prepare", step, device)
        tree = self._open()
        with self._record.transaction() as sql:
            holders = sql.execute(
                "SELECT * FROM (SELECT * FROM attachments UNION ALL SELECT * FROM prepared)"
                " WHERE :address IN (address, parent_address) OR address = :parent",
                {"address": device.address, "parent": device.parent_address},
            ).fetchall()
            if not holders:
                before = sql.execute("SELECT num_vfs FROM restoring WHERE address = ?", (device.address,))
                row = before.fetchone()
                num_vfs = row["num_vfs"] if row else tree.num_vfs(PciAddress.parse(device.address))
                sql.execute("DELETE FROM restoring WHERE address = ?", (device.address,))
                sql.execute(
                    "INSERT INTO prepared VALUES (?, ?, ?, ?, ?)",
                    (
                        device.address,
                        device.parent_address,
                        str(step.claim_id),
                        str(step.instance_id),
                        num_vfs,
                    ),
                )
                log_effect(sql, "prepare", step, device)
            if not holders and device.network_settings is not None:
                sql.execute(
                    "INSERT OR REPLACE INTO network_settings VALUES (?, ?)",
                    (device.address, device.network_settings.model_dump_json()),
                )
        for holder in holders:
            if (holder["address"], holder["claim_id"]) != (device.address, str(step.claim_id)):
                raise DriverError(f"{holder['address']} is already in instance {holder['instance_id']}")
        self._give(device.address)

    def has(self, step: Step, device: StepDevice) -> bool:
        """Does the record say so?"""
        with self._record.transaction() as sql:
            return (
                sql.execute(
                    "SELECT 1 FROM attachments WHERE address = ? AND claim_id = ?",
                    (device.address, str(step.claim_id)),
                ).fetchone()
                is not None
            )

    def attach(self, step: Step, device: StepDevice) -> None:
        """Record that the instance has the device."""
        suffer(self.state_path / FAULTS, "attach", step, device)
        with self._record.transaction() as sql:
            instance = str(step.instance_id)
            guest = sql.execute("SELECT arriving FROM guests WHERE instance_id = ?", (instance,)).fetchone()
            is_here = self._has_any_guest or guest is not None
            is_arriving = guest is not None and bool(guest["arriving"])
            self._arrivals.check(step.instance_id, is_here=is_here, is_arriving=is_arriving)
            if plug(sql, device.address, step.claim_id):
                log_effect(sql, "attach", step, device)

    def unplug(self, step: Step, device: StepDevice) -> None:
        """Record that the instance has released the device. The device stays prepared."""
        suffer(self.state_path / FAULTS, "unplug", step, device)
        with self._record.transaction() as sql:
            if unplug(sql, device.address, step.claim_id):
                log_effect(sql, "unplug", step, device)

    def detach(self, step: Step, device: StepDevice) -> None:
        """Record that the instance has released the device, then restore the device and its VFs."""
        suffer(self.state_path / FAULTS, "detach", step, device)
        ours = device.address, str(step.claim_id)
        with self._record.transaction() as sql:
            for table, action in (("attachments", "detach"), ("prepared", "restore")):
                moved = sql.execute(
                    f"INSERT INTO restoring SELECT address, num_vfs FROM {table}"  # noqa: S608 - a constant
                    " WHERE address = ? AND claim_id = ?",
                    ours,
                )
                if moved.rowcount:
                    sql.execute(f"DELETE FROM {table} WHERE address = ? AND claim_id = ?", ours)  # noqa: S608
                    log_effect(sql, action, step, device)
        self._take_back(device.address)

    def _give(self, address: str) -> None:
        try:
            self._open().bind(PciAddress.parse(address), VFIO)
        except OSError as error:
            raise DriverError(f"{address} was not bound to {VFIO}: {error}") from error

    def _take_back(self, address: str) -> None:
        with self._record.transaction() as sql:
            row = sql.execute("SELECT num_vfs FROM restoring WHERE address = ?", (address,)).fetchone()
        if row is None:
            return
        tree, function = self._open(), PciAddress.parse(address)
        try:
            tree.bind(function, tree.own_driver(function))
            if row["num_vfs"]:
                tree.set_num_vfs(function, row["num_vfs"])
        except OSError as error:
            raise DriverError(f"{address} was not restored: {error}") from error
        with self._record.transaction() as sql:
            sql.execute("DELETE FROM network_settings WHERE address = ?", (address,))
            sql.execute("DELETE FROM restoring WHERE address = ?", (address,))

    def _open(self) -> SimulatedTree:
        try:
            return SimulatedTree(self._root)
        except NotSimulated as error:
            raise DriverError(f"the simulated driver does not touch real devices: {error}") from error
