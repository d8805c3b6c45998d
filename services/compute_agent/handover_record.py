"""The record of the devices that were handed over: ``handover.sqlite``.

It keeps what the host does not show: for which claim a device was handed over, which driver it had, how many
VFs a port had, and which card it was. A row is written before the device is handed over, and stays until the
device is restored, so that a killed agent can continue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.store import LocalStore

RECORD = "handover.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS handed_over (
    address TEXT PRIMARY KEY, parent_address TEXT,
    claim_id TEXT, instance_id TEXT,          -- NULL: the guest has released it, and it is not restored
    driver TEXT, override TEXT,               -- its driver and driver_override before
    num_vfs INTEGER NOT NULL,
    iommu_group INTEGER,
    serial TEXT, mac TEXT);                   -- of its card, that is of the PF; NULL: not known
"""


@dataclass(frozen=True, slots=True)
class Card:
    """What identifies a card, wherever it is plugged in. Both are None if the card shows neither."""

    serial: str | None = None
    mac: str | None = None

    def is_another(self, other: Card) -> bool:
        """Do both show that they are not the same?"""
        pairs = (self.serial, other.serial), (self.mac, other.mac)
        return any(None not in pair and pair[0] != pair[1] for pair in pairs)

    def is_same(self, other: Card) -> bool:
        """Do both show that they are the same?"""
        pairs = (self.serial, other.serial), (self.mac, other.mac)
        return not self.is_another(other) and any(
            pair[0] is not None and pair[0] == pair[1] for pair in pairs
        )

    def __str__(self) -> str:
        return f"serial number {self.serial}" if self.serial is not None else f"MAC {self.mac}"


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
    iommu_group: int | None = None
    card: Card = Card()

    @property
    def port(self) -> PciAddress:
        """The PF of a VF; for any other device, the device itself."""
        return self.parent or self.address


def held_by_claims(rows: Iterable[HandedOver]) -> dict[PciAddress, HandedOver]:
    """Those that are not being restored, by their address."""
    return {row.address: row for row in rows if row.claim_id is not None}


class HandoverRecord:
    """Threads may share one. Raises ``sqlite3.Error`` if the disk is full or broken."""

    def __init__(self, state_path: Path) -> None:
        self._store = LocalStore(state_path / RECORD, _SCHEMA)
        self._store.rebuild("handed_over", "serial", _SCHEMA)  # release 0.2.0 did not record the card

    def rows(self) -> Sequence[HandedOver]:
        """All devices that were handed over and are not restored, in order of address."""
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
                row["iommu_group"],
                Card(row["serial"], row["mac"]),
            )
            for row in rows
        ]

    def find(self, address: PciAddress) -> HandedOver | None:
        """The record of a device; None: it was not handed over."""
        return next((row for row in self.rows() if row.address == address), None)

    def write(self, row: HandedOver) -> None:
        """Record the device. A PF that is handed over loses its VFs: none of these has to be restored."""
        values = row.address, row.parent, row.claim_id, row.instance_id, row.driver, row.override
        texts = [None if value is None else str(value) for value in values]
        with self._store.transaction() as sql:
            sql.execute(
                "INSERT OR REPLACE INTO handed_over VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*texts, row.num_vfs, row.iommu_group, row.card.serial, row.card.mac),
            )
            sql.execute(
                "DELETE FROM handed_over WHERE parent_address = ? AND claim_id IS NULL", (str(row.address),)
            )

    def release(self, address: PciAddress) -> None:
        """No claim has the device any more: it has to be restored."""
        with self._store.transaction() as sql:
            sql.execute(
                "UPDATE handed_over SET claim_id = NULL, instance_id = NULL WHERE address = ?",
                (str(address),),
            )

    def forget(self, address: PciAddress) -> None:
        """The device is restored. Does nothing if a claim has it."""
        with self._store.transaction() as sql:
            sql.execute("DELETE FROM handed_over WHERE address = ? AND claim_id IS NULL", (str(address),))

    def close(self) -> None:
        """Close the file."""
        self._store.close()
