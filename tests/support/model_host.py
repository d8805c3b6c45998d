"""One host of the model: its devices, which of them are free, and how a report changes them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from uuid import UUID

from portclaim.common.rpc.agent_messages import DeviceReport
from tests.support.fleet import CONNECTX5, T4, X710


class Kind(NamedTuple):
    """The facts of a device that a request compares."""

    dev_type: str
    vendor_id: str
    product_id: str


_NIC_PF, _NIC_VF = Kind("type-PF", X710.vendor, X710.pf), Kind("type-VF", X710.vendor, X710.vf)
_ROCE_PF = Kind("type-PF", CONNECTX5.vendor, CONNECTX5.pf)
_ROCE_VF = Kind("type-VF", CONNECTX5.vendor, CONNECTX5.vf)
ALIASES = {
    "nic-pf": {_NIC_PF},
    "nic-vf": {_NIC_VF},
    "roce-pf": {_ROCE_PF},
    "roce-vf": {_ROCE_VF},
    "any-pf": {_NIC_PF, _ROCE_PF},
    "any-vf": {_NIC_VF, _ROCE_VF},
    "gpu": {Kind("type-PCI", *T4)},
}


class Free(NamedTuple):
    """A free device; ``parent`` is the PF of a VF."""

    address: str
    kind: Kind
    parent: str | None = None

    def excludes(self, other: "Free") -> bool:
        """Is it impossible to hold both devices?"""
        return self.address in {other.address, other.parent} or self.parent == other.address


def kinds_requested(alias: str) -> list[tuple[int, Collection[Kind]]]:
    """For each requested device, the index of its request and the kinds that suit."""
    requests = [part.split(":") for part in alias.split(",")]
    return [(index, ALIASES[name]) for index, (name, count) in enumerate(requests) for _ in range(int(count))]


def can_serve(free: Collection[Free], wanted: Sequence[Collection[Kind]]) -> bool:
    """Is there a free device for each wanted one, without a PF and its own VF? Tries all combinations."""
    if not wanted:
        return True
    tried = set()
    for device in free:
        alike = device.kind, device.parent or device.address
        if device.kind in wanted[0] and alike not in tried:
            tried.add(alike)
            if can_serve([other for other in free if not device.excludes(other)], wanted[1:]):
                return True
    return False


@dataclass
class Device:
    kind: Kind
    parent: str | None
    offered: bool = True
    present: bool = True
    usable: bool = True
    drained: bool = False
    status: str = "unavailable"
    claim_id: UUID | None = None

    @property
    def follows(self) -> bool:
        """Does its status follow from its own facts and its PF or VFs?"""
        return self.claim_id is None and self.status != "removed"

    def settle(self, partner: str | None) -> None:
        """Set the status. ``partner``: the status of its PF or VFs that a claim holds, or None."""
        if not self.offered or partner == "allocated":
            self.status = "unavailable"
        elif partner == "claimed":
            self.status = "unclaimable"
        else:
            self.status = "available" if self.present and self.usable and not self.drained else "unavailable"


@dataclass
class Host:
    digest: str | None = None
    devices: dict[str, Device] = field(default_factory=dict)

    def copy(self) -> "Host":
        return Host(self.digest, {address: replace(device) for address, device in self.devices.items()})

    def free(self) -> dict[str, Free]:
        return {
            address: Free(address, device.kind, device.parent)
            for address, device in self.devices.items()
            if device.status == "available"
        }

    def vfs(self, address: str) -> list[Device]:
        return [device for device in self.devices.values() if device.parent == address]

    def apply(self, reports: Sequence[DeviceReport]) -> None:
        """Change the devices that no claim holds to what is reported."""
        in_use = {address for address in self.devices if self._is_in_use(address)}
        by_address = {report.address: report for report in reports}
        # A held device that is not a PF becomes one only when it is free; its VFs count only from then on.
        other = {address for address in in_use if self.devices[address].kind.dev_type != "type-PF"}
        listed = {report.address: report for report in reports if report.parent_address not in other}
        for address, device in self.devices.items():
            if address not in listed:
                device.present = False
                if address not in in_use and not self._may_come_back(device, by_address):
                    device.status = "removed"
        for address, report in listed.items():
            kind = Kind(report.dev_type, report.vendor_id, report.product_id)
            device = self.devices.setdefault(address, Device(kind, report.parent_address))
            if address not in in_use:
                device.kind, device.parent = kind, report.parent_address
                if device.parent is not None:  # a VF is drained if its new port is drained
                    device.drained = device.parent in self.devices and self.devices[device.parent].drained
            if device.status == "removed":
                device.status = "unavailable"
            device.present = (device.kind, device.parent) == (kind, report.parent_address)
            device.offered = report.offered
            device.usable = report.unusable_reason is None
        self.settle(self.devices)

    def _is_in_use(self, address: str) -> bool:
        return any(each.claim_id is not None for each in [self.devices[address], *self.vfs(address)])

    def _may_come_back(self, device: Device, by_address: Mapping[str, DeviceReport]) -> bool:
        """Is it a VF whose PF is held, or is reported as unusable?"""
        if device.parent is None:
            return False
        pf = by_address.get(device.parent)
        in_trouble = pf is not None and pf.dev_type == "type-PF" and pf.unusable_reason is not None
        return in_trouble or self.devices[device.parent].claim_id is not None

    def settle(self, ports: Collection[str]) -> None:
        """Set the statuses of the devices of these ports that no claim holds."""
        for address, device in self.devices.items():
            if address in ports and device.parent is None and device.follows:
                held = {vf.status for vf in self.vfs(address) if vf.claim_id is not None}
                # A PF that became unavailable stays unavailable until all its VFs are free.
                stays = held and device.status == "unavailable"
                device.settle("allocated" if stays else min(held, default=None))
        for device in self.devices.values():
            if device.parent is not None and device.parent in ports and device.follows:
                device.settle(self.devices[device.parent].status)
