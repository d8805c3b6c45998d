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

RECORD = "network.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS lent (
    address TEXT PRIMARY KEY, parent_address TEXT NOT NULL,
    claim_id TEXT NOT NULL, step INTEGER NOT NULL,
    wanted TEXT NOT NULL,  -- its settings for the claim, JSON
    before TEXT NOT NULL); -- its settings before the claim
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
    """One row per VF. Threads may share one."""

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


def _dumped(settings: VfSettings) -> str:
    return json.dumps(asdict(settings))


def _loaded(text: str) -> VfSettings:
    facts = json.loads(text)
    vlan = facts.pop("vlan")
    return VfSettings(**facts, vlan=None if vlan is None else Vlan(**vlan))
