"""The PCI functions of a Nova host in Portclaim's form: those that it can have, and others. Rules only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from portclaim.cli.nova import faults
from portclaim.cli.nova.cell import NovaDevice
from portclaim.cli.nova.faults import HELD, PF, VF
from portclaim.cli.nova.known import AWAITED
from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.errors import InvalidPciAddress

UNKNOWN_PRODUCT = "0000"
"""The product id of a PF of which Nova knows only VFs, until its agent reports it."""


@dataclass(frozen=True, slots=True)
class PlannedDevice:
    """A device to make. ``unusable_reason``: why it is unavailable until its agent reports."""

    address: str
    dev_type: str
    vendor_id: str
    product_id: str
    numa_node: int | None
    parent_address: str | None
    offered: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    unusable_reason: str = AWAITED

    @property
    def port(self) -> str:
        """The PF of a VF; for any other device, the device itself."""
        return self.parent_address or self.address


class Functions:
    """The devices of a host, with addresses and ids in Portclaim's form.

    ``devices``: what can be had here, by address. ``left_out``: what is in use in Nova and cannot, with the
    reason. ``planned``: the rows of ``devices``, and of PFs that Nova does not know, PFs first.
    """

    def __init__(self, found: Iterable[NovaDevice]) -> None:
        self.left_out: list[tuple[NovaDevice, str]] = []
        self.devices: dict[str, NovaDevice] = {}
        self._vfs: defaultdict[str, list[NovaDevice]] = defaultdict(list)
        candidates: defaultdict[str, list[NovaDevice]] = defaultdict(list)
        for device in map(_in_our_form, found):
            candidates[device.address].append(device)
        pfs = {address for address, rows in candidates.items() if rows[0].dev_type == PF}
        for address, rows in sorted(candidates.items()):
            fault = next(faults.of_form(rows, candidates.keys() - pfs), None)
            if fault is None:
                self.devices[address] = rows[0]
                if rows[0].parent_address is not None:
                    self._vfs[rows[0].parent_address].append(rows[0])
            else:
                self.left_out += [(row, fault) for row in rows if in_use(row)]
        self.planned = {address: _row(device) for address, device in self.devices.items()}
        for address, vfs in self._vfs.items():
            self.planned.setdefault(address, _unknown_pf(address, vfs[0]))
        self.planned = dict(sorted(self.planned.items(), key=lambda item: item[1].dev_type == VF))

    def held_partners(self, device: NovaDevice) -> Sequence[str]:
        """The VFs of a PF, or the PF of a VF, that are in use in Nova too."""
        if device.parent_address is not None:
            partners = [self.devices[device.parent_address]] if device.parent_address in self.devices else []
        else:
            partners = self._vfs[device.address]
        return [partner.address for partner in partners if in_use(partner)]


def in_use(device: NovaDevice) -> bool:
    """Has Nova claimed or allocated the device, or does it at least name an instance?"""
    return device.status in HELD or device.instance_id is not None


def _in_our_form(device: NovaDevice) -> NovaDevice:
    return replace(
        device,
        address=_address(device.address),
        parent_address=None if device.parent_address is None else _address(device.parent_address),
        vendor_id=device.vendor_id.lower(),
        product_id=device.product_id.lower(),
    )


def _address(text: str) -> str:
    try:
        return str(PciAddress.parse(text))
    except InvalidPciAddress:
        return text


def _row(device: NovaDevice) -> PlannedDevice:
    return PlannedDevice(
        device.address,
        device.dev_type,
        device.vendor_id,
        device.product_id,
        device.numa_node,
        device.parent_address,
    )


def _unknown_pf(address: str, vf: NovaDevice) -> PlannedDevice:
    """The PF of VFs that Nova hands out while it does not hand out the PF."""
    return PlannedDevice(address, PF, vf.vendor_id, UNKNOWN_PRODUCT, vf.numa_node, None, offered=False)
