"""Give VFs of network cards out with the network settings that their claims ask for, and restore what was
there before.

A VF's settings are kept by its PF's driver and survive a reset of the VF. What was there before is recorded
before a setting is changed.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.network_settings import NETWORK, VfSettings, Vlan
from portclaim.common.rpc.agent_messages import Step
from portclaim.common.rpc.network_settings import NetworkSettings
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.network_record import NetworkRecord
from portclaim.services.compute_agent.pf_network import PfNetwork
from portclaim.services.compute_agent.representor import vf_number
from portclaim.services.compute_agent.restore import Restorer
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.vf_link import NO_MAC, NothingKept, SettingRefused, VfLinks

LOG = logging.getLogger(__name__)

OPTION = "[handover] network_settings"
RATE = "rate"  # min_tx_rate and max_tx_rate: they are written together


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a VF's settings are: its number on the network interface of its PF."""

    netdev: str
    number: int
    driver: str


class VfNetwork:
    """Sets and restores the network settings of VFs. The caller holds the lock of the VF's port.

    ``enabled``: the option of the agent. Without it nothing is set, but what was set before is restored.
    ``restorer`` knows what device_spec says.
    """

    _record: NetworkRecord
    _ports: PfNetwork

    def __init__(
        self,
        tree: SysfsTree,
        scanner: Scanner,
        links: VfLinks,
        restorer: Restorer,
        *,
        enabled: bool,
    ) -> None:
        self._tree = tree
        self._scanner = scanner
        self._links = links
        self._restorer = restorer
        self._defaults = restorer.vf_defaults
        self.enabled = enabled

    def start(self, state_path: Path) -> None:
        """Open the record."""
        self._record = NetworkRecord(state_path)
        restorer = self._restorer
        self._ports = PfNetwork(self._scanner, self._links, restorer.kernel, self._record, restorer.happens)

    def stop(self) -> None:
        """Close the record."""
        self._record.close()

    def lend_port(self, step: Step, address: PciAddress) -> None:
        """Set what the step asks for a PF, before it leaves its driver. Raises :class:`DriverError`."""
        asked, device = _asked(step, address), self._scanner.look(address)
        if asked is not None and self.enabled and device is not None and device.dev_type is DeviceType.PF:
            if not (device.class_id or "").startswith(NETWORK):
                raise DriverError(f"{address} is no PF of a network card: it has no settings to set")
            self._ports.lend(step, device, asked)

    def take_back_port(self, address: PciAddress) -> None:
        """Set the settings of a PF, which is on its driver again, to what they were before the claim.

        Raises :class:`DriverError`: then the caller tries again.
        """
        self._ports.take_back(address)

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
            self._record.forget_vfs_of(address)  # its VFs are gone, with their settings
        if not self.enabled and asked is not None:
            raise DriverError(f"{address}: {OPTION} is off on this host, so nothing is set for a claim")
        if not _has_settings(device):
            if asked is not None and device.dev_type is not DeviceType.PF:
                raise DriverError(f"{address} is no VF of a network card: it has no settings to set")
            return
        if not self.enabled:
            return
        if asked is not None and asked.mtu is not None:
            raise DriverError(f"{address} is a VF: mtu is a setting of PFs")
        said = VfSettings() if asked is None else _vf_settings(asked)
        wanted = said.over(self._defaults(address))
        if not wanted.said():
            return
        place = self._place(device)
        try:
            shown = self._links.read(place.netdev, place.number)
        except NothingKept:
            if asked is not None:
                raise
            return
        # What the driver does not show cannot be left over from somebody else.
        not_kept = wanted.said().keys() - said.said().keys() - shown.said().keys()
        wanted = replace(wanted, **dict.fromkeys(not_kept))
        self._record.note(step, device, wanted, shown)
        if failures := self._set(place, wanted, shown):
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
        self._record.note(step, device, VfSettings(), replace(usual, **not_kept))

    def lend_again(self, address: PciAddress, *, is_open: bool) -> None:
        """Set what a claim has asked for, because the VF may be a new one since then.

        If the VF ``is_open`` in a guest, that may have set a MAC of its own, which stays. Raises
        :class:`DriverError`.
        """
        row, device = self._record.find(address), self._scanner.look(address)
        if row is not None and device is not None and device.dev_type is DeviceType.VF:
            place, wanted = self._place(device), row.wanted
            shown = self._links.read(place.netdev, place.number)
            if is_open and shown.mac != NO_MAC:
                wanted = replace(wanted, mac=None)
            if failures := self._set(place, wanted, shown):
                raise DriverError(f"{address}, network settings: {'; '.join(failures)}")

    def take_back(self, address: PciAddress) -> None:
        """Set the settings to what they were before the claim.

        No guest has the VF any more. Raises :class:`DriverError`: then the caller tries again.
        """
        row = self._record.find(address)
        if row is None:
            return
        device = self._scanner.look(address)
        if device is not None and device.dev_type is DeviceType.VF:
            place = self._place(device)
            shown = self._links.read(place.netdev, place.number)
            if failures := self._set(place, row.before, shown, mac_goes=True):
                raise DriverError(
                    f"{address} still has network settings of claim {row.claim_id}: {'; '.join(failures)}"
                )
        self._record.forget(address)

    def forget(self, address: PciAddress) -> None:
        """Set nothing: the card of the settings is no longer at this address."""
        self._record.forget(address)

    def _set(
        self, place: _Place, wanted: VfSettings, shown: VfSettings, *, mac_goes: bool = False
    ) -> list[str]:
        """Set what differs from what is ``shown``, and read it back. Answers what failed.

        ``mac_goes``: if the driver does not forget the MAC that is shown, another one is set.
        """
        refused: dict[str, str] = {}
        changes = _changes(wanted, shown)
        for name, value in changes.items():
            try:
                self._links.write(place.netdev, place.number, name, value)
            except SettingRefused as error:
                refused[name] = f"{_phrase(name, value)}: {error}"
        if not changes:
            return []
        now = self._links.read(place.netdev, place.number)
        if mac_goes and changes.get("mac") == NO_MAC:
            refused.pop("mac", None)
            if now.mac == shown.mac:
                self._links.write(place.netdev, place.number, "mac", _any_mac())
            wanted = replace(wanted, mac=None)
        for name, value in _changes(wanted, now).items():
            if name not in refused:
                found = (now.min_tx_rate, now.max_tx_rate) if name == RATE else getattr(now, name)
                refused[name] = f"{_phrase(name, value)}: it was set, but reads back as {found}"
        return list(refused.values())

    def _place(self, device: PciDevice) -> _Place:
        pf = None if device.parent is None else self._scanner.look(device.parent)
        if pf is None or pf.netdev is None:
            raise DriverError(
                f"{device.address}: its PF {device.parent} has no network interface on this host, so its "
                "network settings cannot be set"
            )
        number = vf_number(self._tree, device.address, pf.address)
        if number is None:
            raise DriverError(f"{device.address}: its PF {pf.address} does not list this VF")
        return _Place(pf.netdev, number, pf.driver or "no driver")


def _changes(wanted: VfSettings, shown: VfSettings) -> dict[str, Any]:
    """What is to be written: the settings that differ, the two rates as one."""
    said = wanted.said()
    changed = {name: value for name, value in said.items() if getattr(shown, name) != value}
    if changed.pop("min_tx_rate", changed.pop("max_tx_rate", None)) is not None:
        pair = wanted.over(shown)
        changed[RATE] = pair.min_tx_rate or 0, pair.max_tx_rate or 0
    return changed


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
    if isinstance(value, tuple):
        return f"min_tx_rate {value[0]} and max_tx_rate {value[1]}"
    return f"{name} {value}"


def _any_mac() -> str:
    """A MAC of no manufacturer: locally administered, of one interface."""
    return bytes((0x02, *secrets.token_bytes(5))).hex(":")
