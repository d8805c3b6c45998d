"""Give VFs of network cards out with the network settings that their claims ask for, and restore what was
there before.

A VF's settings are kept by its PF's driver and survive a reset of the VF. ``network.sqlite`` keeps what was
there before the claim. A row is written before a setting is changed, and stays until all settings are as they
were before, so that a killed agent can continue.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.network_settings import NETWORK, VfSettings, Vlan
from portclaim.common.rpc.agent_messages import Step
from portclaim.common.rpc.network_settings import NetworkSettings
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.store import LocalStore
from portclaim.services.compute_agent.sysfs import PCI_DEVICES, SysfsTree
from portclaim.services.compute_agent.vf_link import NO_MAC, SettingRefused, VfLinks

LOG = logging.getLogger(__name__)

RECORD = "network.sqlite"
OPTION = "[handover] network_settings"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS lent (
    address TEXT PRIMARY KEY, parent_address TEXT NOT NULL,
    claim_id TEXT NOT NULL, step INTEGER NOT NULL,
    wanted TEXT NOT NULL,  -- its settings for the claim, JSON
    before TEXT NOT NULL); -- its settings before the claim
"""
_VIRTFN = re.compile(r"virtfn(\d+)", re.ASCII)
_RATES = ("min_tx_rate", "max_tx_rate")


@dataclass(frozen=True, slots=True)
class Lent:
    """A VF whose settings may differ from those ``before`` the claim."""

    address: PciAddress
    claim_id: UUID
    step: int
    wanted: VfSettings
    before: VfSettings


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a VF's settings are: its number on the network interface of its PF."""

    netdev: str
    number: int
    driver: str


class VfNetwork:
    """Sets and restores the network settings of VFs. The caller holds the lock of the VF's port.

    ``enabled``: the option of the agent. Without it nothing is set, but what was set before is restored.
    ``defaults`` are the settings of a VF that its device_spec entry says, or else the usual ones.
    """

    _store: LocalStore

    def __init__(
        self,
        tree: SysfsTree,
        scanner: Scanner,
        links: VfLinks,
        defaults: Callable[[PciAddress], VfSettings],
        *,
        enabled: bool,
    ) -> None:
        self._tree = tree
        self._scanner = scanner
        self._links = links
        self._defaults = defaults
        self.enabled = enabled

    def start(self, state_path: Path) -> None:
        """Open the record."""
        self._store = LocalStore(state_path / RECORD, _SCHEMA)

    def stop(self) -> None:
        """Close the record."""
        self._store.close()

    def lend(self, step: Step, address: PciAddress) -> None:
        """Set what the step asks for the device, and the defaults of what it does not ask for.

        May be called again. Raises :class:`DriverError` with each setting that cannot be set: then the caller
        takes the device back.
        """
        asked = _asked(step, address)
        device = self._scanner.look(address)
        if device is None:
            raise DriverError(f"{address} is not on this host")
        if device.dev_type is DeviceType.PF:
            self._forget("parent_address", address)  # its VFs are gone, with their settings
        if not self.enabled and asked is not None:
            raise DriverError(f"{address}: {OPTION} is off on this host, so nothing is set for a claim")
        if not _has_settings(device):
            if asked is not None:
                raise DriverError(f"{address} is no VF of a network card: it has no settings to set")
            return
        if not self.enabled:
            return
        said = VfSettings() if asked is None else _vf_settings(asked)
        wanted = said.over(self._defaults(address))
        if not wanted.said():
            return
        place = self._place(device)
        shown = self._links.read(place.netdev, place.number)
        # What the driver does not show cannot be left over from somebody else.
        not_kept = wanted.said().keys() - said.said().keys() - shown.said().keys()
        wanted = replace(wanted, **dict.fromkeys(not_kept))
        self._note(step, device, wanted, shown)
        if failures := self._set(place, wanted):
            raise DriverError(
                f"{address} cannot get its network settings from {place.driver}, the driver of its PF: "
                + "; ".join(failures)
            )

    def adopt(self, step: Step, device: PciDevice) -> None:
        """Record a VF that an instance has already. Nobody knows what was there before its settings.

        So it will be given back with the defaults, and without a MAC.
        """
        if not self.enabled or not _has_settings(device):
            return
        try:
            place = self._place(device)
            shown = self._links.read(place.netdev, place.number)
        except DriverError as error:
            LOG.warning("the network settings of %s will stay as they are: %s", device.address, error)
            return
        usual = replace(self._defaults(device.address), mac=NO_MAC)
        not_kept = dict.fromkeys(usual.said().keys() - shown.said().keys())
        self._note(step, device, VfSettings(), replace(usual, **not_kept))

    def lend_again(self, address: PciAddress) -> None:
        """Set what a claim has asked for, because the VF may be a new one since then.

        Raises :class:`DriverError`.
        """
        row, device = self.find(address), self._scanner.look(address)
        if row is not None and device is not None and device.dev_type is DeviceType.VF:
            place = self._place(device)
            if failures := self._set(place, row.wanted):
                raise DriverError(f"{address}, network settings: {'; '.join(failures)}")

    def take_back(self, address: PciAddress) -> None:
        """Set the settings to what they were before the claim.

        No guest has the VF any more. Raises :class:`DriverError`: then the caller tries again.
        """
        row = self.find(address)
        if row is None:
            return
        device = self._scanner.look(address)
        if device is not None and device.dev_type is DeviceType.VF:
            place = self._place(device)
            lent = self._links.read(place.netdev, place.number)
            if failures := self._set(place, row.before, instead_of=lent.mac):
                raise DriverError(
                    f"{address} still has network settings of claim {row.claim_id}: {'; '.join(failures)}"
                )
        self._forget("address", address)

    def find(self, address: PciAddress) -> Lent | None:
        """The record of a VF; None: its settings are its own."""
        with self._store.transaction() as sql:
            row = sql.execute("SELECT * FROM lent WHERE address = ?", (str(address),)).fetchone()
        if row is None:
            return None
        return Lent(
            address, UUID(row["claim_id"]), row["step"], _loaded(row["wanted"]), _loaded(row["before"])
        )

    def _note(self, step: Step, device: PciDevice, wanted: VfSettings, shown: VfSettings) -> None:
        """Write down whose the VF is, and what is there now. What is to be restored already stays."""
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

    def _forget(self, column: str, address: PciAddress) -> None:
        with self._store.transaction() as sql:
            sql.execute(f"DELETE FROM lent WHERE {column} = ?", (str(address),))  # noqa: S608 - a constant

    def _set(self, place: _Place, wanted: VfSettings, instead_of: str | None = None) -> list[str]:
        """Set what differs, and read it back. Answers what failed.

        ``instead_of``: a MAC that must not stay. If the driver does not forget MACs, another one is set.
        """
        shown = self._links.read(place.netdev, place.number)
        refused: dict[str, str] = {}
        for name, value in wanted.said().items():
            if getattr(shown, name) == value or (name == _RATES[0] and wanted.max_tx_rate is not None):
                continue  # max_tx_rate sets both rates
            try:
                self._write(place, wanted, shown, name)
            except SettingRefused as error:
                if name == "mac" and value == NO_MAC and instead_of is not None:
                    self._write(place, replace(wanted, mac=_any_mac()), shown, name)
                else:
                    refused[name] = f"{_phrase(name, value)}: {error}"
        now = self._links.read(place.netdev, place.number)
        for name, value in wanted.said().items():
            found = getattr(now, name)
            if found == value or name in refused or (name == "mac" and instead_of not in {None, found}):
                continue
            refused[name] = f"{_phrase(name, value)}: it was set, but reads back as {found}"
        return list(refused.values())

    def _write(self, place: _Place, wanted: VfSettings, shown: VfSettings, name: str) -> None:
        value: Any = getattr(wanted, name)
        if name in _RATES:
            pair = wanted.over(shown)
            name, value = "rate", (pair.min_tx_rate or 0, pair.max_tx_rate or 0)
        self._links.write(place.netdev, place.number, name, value)

    def _place(self, device: PciDevice) -> _Place:
        pf = None if device.parent is None else self._scanner.look(device.parent)
        if pf is None or pf.netdev is None:
            raise DriverError(
                f"{device.address}: its PF {device.parent} has no network interface on this host, so its "
                "network settings cannot be set"
            )
        path = f"{PCI_DEVICES}/{pf.address}"
        for name in self._tree.names(path) or ():
            link = _VIRTFN.fullmatch(name)
            if link and self._tree.link(f"{path}/{name}") == str(device.address):
                return _Place(pf.netdev, int(link[1]), pf.driver or "no driver")
        raise DriverError(f"{device.address}: its PF {pf.address} does not list this VF")


def _dumped(settings: VfSettings) -> str:
    return json.dumps(asdict(settings))


def _loaded(text: str) -> VfSettings:
    facts = json.loads(text)
    vlan = facts.pop("vlan")
    return VfSettings(**facts, vlan=None if vlan is None else Vlan(**vlan))


def _has_settings(device: PciDevice) -> bool:
    return device.dev_type is DeviceType.VF and (device.class_id or "").startswith(NETWORK)


def _asked(step: Step, address: PciAddress) -> NetworkSettings | None:
    return next((device.network_settings for device in step.devices if device.address == str(address)), None)


def _vf_settings(asked: NetworkSettings) -> VfSettings:
    vlan = asked.vlan
    return VfSettings(
        mac=asked.mac,
        vlan=None if vlan is None else Vlan(vlan.id, vlan.qos, vlan.protocol),
        min_tx_rate=asked.min_tx_rate,
        max_tx_rate=asked.max_tx_rate,
        link_state=asked.link_state,
        trust=asked.trust,
        spoofchk=asked.spoofchk,
    )


def _phrase(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{name} {'on' if value else 'off'}"
    if isinstance(value, Vlan):
        return f"vlan {value.id} qos {value.qos} protocol {value.protocol}" if value.id else "no vlan"
    return f"{name} {value}"


def _any_mac() -> str:
    """A MAC of no manufacturer: locally administered, of one interface."""
    return bytes((0x02, *secrets.token_bytes(5))).hex(":")
