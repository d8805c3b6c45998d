"""Why a device that Nova has in use must not be imported. Rules only. The first reason is the one to tell."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from portclaim.cli.nova.cell import NovaDevice, NovaInstance
from portclaim.cli.nova.known import KnownHost
from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.errors import InvalidPciAddress

PCI, PF, VF = "type-PCI", "type-PF", "type-VF"
HELD = frozenset({"claimed", "allocated"})


def of_form(rows: Sequence[NovaDevice], not_pfs: Collection[str]) -> Iterator[str]:
    """Why Portclaim can have no such device. ``rows``: all of this address; ``not_pfs``: other addresses."""
    device = rows[0]
    if len(rows) > 1:
        yield "several compute nodes of the host have it: delete those that are not in use any more"
    for address in (device.address, device.parent_address):
        try:
            PciAddress.parse(address or "0000:00:00.0")
        except InvalidPciAddress as error:
            yield str(error)
    if device.dev_type not in {PCI, PF, VF}:
        yield f"it is of type {device.dev_type}, which Portclaim does not hand out"
    if device.dev_type == VF and device.parent_address is None:
        yield "it is a VF, and Nova does not say of which PF"
    if device.dev_type != VF and device.parent_address is not None:
        yield f"it is a {device.dev_type}, and has a parent"
    if device.parent_address in not_pfs:
        yield f"its parent {device.parent_address} is no PF"


def of_use(
    device: NovaDevice, instance: NovaInstance | None, partners: Sequence[str], request: int | None
) -> Iterator[str]:
    """What is wrong with its use in Nova. ``partners``: its PF, or VFs of it, that are in use too."""
    if device.status not in HELD:
        yield f"Nova names an instance for it, but it is {device.status}"
    if device.instance_id is None:
        yield "Nova has it in use and names no instance"
    elif instance is None:
        yield "its instance is not in Nova any more"
    if partners:
        kin = "VFs of it" if device.dev_type == PF else "its PF"
        yield f"Nova has it in use, and {kin} too: {', '.join(partners)}"
    if request is None:
        yield f"unknown request: its instance has no PCI request that fits; its own id is {device.request_id}"


def of_host(device: NovaDevice, known: KnownHost) -> Iterator[str]:
    """What speaks against it in what Portclaim knows of the host."""
    row = known.devices.get(device.address)
    if known.is_over:
        yield "Nova has given it away after the import, and the agent works for Portclaim now: not taken over"
    if known.has_agent and (row is None or not row.is_shown):
        yield "its host does not show it"
    if row is None:
        return
    shown, told = (row.dev_type, row.vendor_id, row.product_id), _kind(device)
    if shown != told:
        yield f"its host shows a {' '.join(shown)}, Nova says {' '.join(told)}"
    for address in (device.address, row.parent_address, *known.vfs(device.address)):
        other = None if address is None else known.devices.get(address)
        if other is not None and other.claim_id is not None:
            yield f"claim {other.claim_id} holds {'it' if other is row else address}"


def _kind(device: NovaDevice) -> tuple[str, str, str]:
    return device.dev_type, device.vendor_id, device.product_id
