"""Devices of ``one_time_use`` that a claim has had: they wait until an operator renews them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from portclaim.common.errors import InvalidRequest
from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.errors import DeviceOutOfReach
from portclaim.common.pci.host import HostView
from portclaim.services.compute_agent.drivers.base import Attachment
from portclaim.services.compute_agent.store import LocalStore

RECORD = "used_once.sqlite"
_SCHEMA = "CREATE TABLE IF NOT EXISTS used (address TEXT PRIMARY KEY, claim_id TEXT NOT NULL);"


class UsedOnce:
    """The record of used devices. Threads may share one.

    A device is used from the moment at which it is prepared for a claim, whether or not the guest comes. With
    a PF its VFs are used, and with a VF its PF, because both are the same hardware.
    """

    def __init__(self, state_path: Path, host: str, holders: Callable[[], Sequence[Attachment]]) -> None:
        """``holders`` answers the devices that claims have on this host now."""
        self._host = host
        self._holders = holders
        self._store = LocalStore(state_path / RECORD, _SCHEMA)
        self._one_time: frozenset[PciAddress] = frozenset()

    def close(self) -> None:
        """Close the record."""
        self._store.close()

    @contextmanager
    def preparing(self, claim_id: UUID, address: PciAddress) -> Iterator[None]:
        """Record the device while it is prepared, if its entry says ``one_time_use``.

        An error takes that back.
        """
        is_new = address in self._one_time and self._add(claim_id, address)
        try:
            yield
        except BaseException:
            if is_new:
                self._remove(address)
            raise

    def renew(self, address: PciAddress) -> bool:
        """The device may be handed out again. Answers whether it was used.

        Raises :class:`InvalidRequest` while a claim has the device.
        """
        for holder in self._holders():
            if holder.address == address:
                raise InvalidRequest(
                    f"{address} is in instance {holder.instance_id}: release its claim first"
                )
        return self._remove(address)

    def problems(self, devices: Sequence[PciDevice], specs: DeviceSpecs) -> Mapping[PciAddress, str]:
        """The devices of a scan that cannot be handed out, because they or their partners were used."""
        view = HostView.of(devices)
        self._one_time = _one_time_devices(devices, view, specs.seen_from(view))
        used = self._addresses() if self._one_time else frozenset()
        used_vf = {device.parent: device.address for device in devices if device.address in used}
        found = {}
        for device in devices:
            address = device.address
            for other, whose in (
                (address, ""),
                (device.parent, "its PF "),
                (used_vf.get(address), "its VF "),
            ):
                if other in used and self._one_time & {address, other}:
                    about = f" ({whose}{other})" if whose else ""
                    found[address] = f"used once{about}: portclaim host renew {self._host} --device {other}"
                    break
        return found

    def _addresses(self) -> frozenset[PciAddress]:
        with self._store.transaction() as sql:
            return frozenset(
                PciAddress.parse(row["address"]) for row in sql.execute("SELECT address FROM used")
            )

    def _add(self, claim_id: UUID, address: PciAddress) -> bool:
        with self._store.transaction() as sql:
            values = str(address), str(claim_id)
            return sql.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", values).rowcount > 0

    def _remove(self, address: PciAddress) -> bool:
        with self._store.transaction() as sql:
            return sql.execute("DELETE FROM used WHERE address = ?", (str(address),)).rowcount > 0


def _one_time_devices(
    devices: Sequence[PciDevice], view: HostView, specs: DeviceSpecs
) -> frozenset[PciAddress]:
    if not any(spec.tags.get("one_time_use") == "true" for spec in specs.specs):
        return frozenset()
    found = set()
    for device in devices:
        try:
            match = specs.match(device, view)
        except DeviceOutOfReach:
            continue
        if match is not None and match.tags.get("one_time_use") == "true":
            found.add(device.address)
    return frozenset(found)
