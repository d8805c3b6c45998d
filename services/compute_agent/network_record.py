"""The record of network settings: what the devices of claims have, and what they had before.

A row is written before a setting is changed, and stays until all settings are as they were before. So a
killed agent can continue.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import PciDevice
from portclaim.common.pci.network_settings import VfSettings, Vlan
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.store import LocalStore
from portclaim.services.compute_agent.vf_link import PortSettings

RECORD = "network.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS lent (
    address TEXT PRIMARY KEY, parent_address TEXT NOT NULL,
    claim_id TEXT NOT NULL, step INTEGER NOT NULL,
    wanted TEXT NOT NULL,  -- its settings for the claim, JSON
    before TEXT NOT NULL); -- its settings before the claim
CREATE TABLE IF NOT EXISTS lent_ports (
    address TEXT PRIMARY KEY, claim_id TEXT NOT NULL,
    mac TEXT, mtu INTEGER, -- its settings before the claim
    is_set INTEGER NOT NULL); -- it has those of the claim
"""


@dataclass(frozen=True, slots=True)
class Lent:
    """A VF whose settings may differ from those ``before`` the claim."""

    address: PciAddress
    claim_id: UUID
    step: int
    wanted: VfSettings
    before: VfSettings


class NetworkRecord:
    """One row per VF, and one per PF. Threads may share one."""

    def __init__(self, state_path: Path) -> None:
        self._store = LocalStore(state_path / RECORD, _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def find(self, address: PciAddress) -> Lent | None:
        """The row of a VF; None: its settings are its own."""
        with self._store.transaction() as sql:
            row = sql.execute("SELECT * FROM lent WHERE address = ?", (str(address),)).fetchone()
        if row is None:
            return None
        return Lent(
            address, UUID(row["claim_id"]), row["step"], _loaded(row["wanted"]), _loaded(row["before"])
        )

    def note(self, step: Step, device: PciDevice, wanted: VfSettings, shown: VfSettings) -> None:
        """Write down whose the VF is, and what is there now. What is to be restored already stays.

        Raises :class:`DriverError` if a later step of the claim has come.
        """
        with self._store.transaction() as sql:
            row = sql.execute("SELECT * FROM lent WHERE address = ?", (str(device.address),)).fetchone()
            if row is not None and row["claim_id"] == str(step.claim_id) and row["step"] > step.step:
                raise DriverError(
                    f"{device.address}: step {step.step} of claim {step.claim_id} comes too late: step "
                    f"{row['step']} has begun"
                )
            before = _dumped(shown) if row is None else row["before"]
            whose = str(device.address), str(device.parent), str(step.claim_id), step.step
            sql.execute(
                "INSERT OR REPLACE INTO lent VALUES (?, ?, ?, ?, ?, ?)", (*whose, _dumped(wanted), before)
            )

    def forget(self, address: PciAddress) -> None:
        """The VF's settings are its own again."""
        with self._store.transaction() as sql:
            sql.execute("DELETE FROM lent WHERE address = ?", (str(address),))

    def forget_vfs_of(self, pf: PciAddress) -> None:
        """The VFs of the PF are gone, with their settings."""
        with self._store.transaction() as sql:
            sql.execute("DELETE FROM lent WHERE parent_address = ?", (str(pf),))

    def note_port(self, step: Step, pf: PciAddress, shown: PortSettings) -> None:
        """Write down whose the PF is, and what is there now. What is to be restored already stays."""
        with self._store.transaction() as sql:
            sql.execute(
                "INSERT INTO lent_ports VALUES (?, ?, ?, ?, 0)"
                " ON CONFLICT (address) DO UPDATE SET claim_id = excluded.claim_id, is_set = 0",
                (str(pf), str(step.claim_id), shown.mac, shown.mtu),
            )

    def port_has_settings(self, pf: PciAddress) -> None:
        """The PF has the settings of its claim, and keeps them."""
        with self._store.transaction() as sql:
            sql.execute("UPDATE lent_ports SET is_set = 1 WHERE address = ?", (str(pf),))

    def port_is_lent(self, pf: PciAddress, claim_id: UUID) -> bool:
        """Has the PF the settings of this claim?"""
        with self._store.transaction() as sql:
            row = sql.execute("SELECT * FROM lent_ports WHERE address = ?", (str(pf),)).fetchone()
        return row is not None and bool(row["is_set"]) and row["claim_id"] == str(claim_id)

    def port_before(self, pf: PciAddress) -> PortSettings | None:
        """The settings of a PF before the claim; None: they are its own."""
        with self._store.transaction() as sql:
            row = sql.execute("SELECT mac, mtu FROM lent_ports WHERE address = ?", (str(pf),)).fetchone()
        return None if row is None else PortSettings(*row)

    def forget_port(self, pf: PciAddress) -> None:
        """The PF's settings are its own again."""
        with self._store.transaction() as sql:
            sql.execute("DELETE FROM lent_ports WHERE address = ?", (str(pf),))


def _dumped(settings: VfSettings) -> str:
    return json.dumps(asdict(settings))


def _loaded(text: str) -> VfSettings:
    facts = json.loads(text)
    vlan = facts.pop("vlan")
    return VfSettings(**facts, vlan=None if vlan is None else Vlan(**vlan))
