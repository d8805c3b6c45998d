"""The inventory that a host reports: the devices that device_spec matches, and a digest of the content."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

from pydantic import TypeAdapter

from portclaim.common.errors import PortclaimError
from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs, Match
from portclaim.common.pci.errors import DeviceOutOfReach
from portclaim.common.pci.host import HostView
from portclaim.common.pci.network_settings import NETWORK, TAG
from portclaim.common.pci.placement_names import normalised
from portclaim.common.rpc.agent_messages import MOST_DEVICES, DeviceReport, NumaCell
from portclaim.common.rpc.fields import DevType
from portclaim.services.compute_agent.scanner import Scan

LOG = logging.getLogger(__name__)
_CONTENT = TypeAdapter(tuple[list[DeviceReport], list[NumaCell]])

# RabbitMQ 4 takes messages of at most 16 MiB, and a message on the bus is up to half as long again as this.
LARGEST = 8 * 2**20
"""How long a report can be, in bytes."""


class InventoryTooLarge(PortclaimError):
    """The host has more devices than a report can have. It is not reported: no claim gets its devices."""


@dataclass(frozen=True)
class Inventory:
    """The inventory of a host, in order of address."""

    devices: list[DeviceReport]
    numa_cells: list[NumaCell]

    @property
    def digest(self) -> str:
        """SHA-256 of the content: the same for the same content on every machine and in every run."""
        return self._digest_and_length[0]

    @cached_property
    def _digest_and_length(self) -> tuple[str, int]:
        content = _CONTENT.dump_json((self.devices, self.numa_cells))
        return hashlib.sha256(content).hexdigest(), len(content)

    def check_size(self) -> None:
        """Raise :class:`InventoryTooLarge` if this is more than the message bus and the conductor take."""
        length = self._digest_and_length[1]
        if len(self.devices) > MOST_DEVICES or length > LARGEST:
            raise InventoryTooLarge(
                f"[pci] device_spec matches {len(self.devices)} devices of this host, {length} bytes to "
                f"report. A report has at most {MOST_DEVICES} devices and {LARGEST} bytes. Let device_spec "
                "match fewer devices, or let their ports have fewer VFs"
            )

    def changes_since(self, earlier: Inventory) -> tuple[list[DeviceReport], list[str]]:
        """The devices that are new or have changed, and the addresses of those that are gone."""
        before = {device.address: device for device in earlier.devices}
        changed = [device for device in self.devices if before.get(device.address) != device]
        gone = before.keys() - {device.address for device in self.devices}
        return changed, sorted(gone)


def take_inventory(
    scan: Scan,
    specs: DeviceSpecs,
    numa_cells: list[NumaCell],
    held_back: Mapping[PciAddress, str],
    out_of_reach: set[PciAddress],
) -> Inventory:
    """Apply ``[pci] device_spec``, as it was parsed at the start, to a scan.

    The inventory has the devices that an entry matches, and the PF of each such VF. A PF that no entry
    matches is reported as not offered. ``held_back`` are devices that are not usable now, with the reason,
    beyond those that the scan found. ``out_of_reach`` are devices that no entry can name: each gets one
    warning.
    """
    host = HostView.of(scan.devices)
    specs = specs.seen_from(host)
    matches = {device.address: _match(specs, device, host, out_of_reach) for device in scan.devices}
    ports = {device.parent for device in scan.devices if matches[device.address] is not None}
    unusable = {**scan.problems, **held_back}
    return Inventory(
        [
            _report(device, match, unusable.get(device.address))
            for device in scan.devices
            if (match := matches[device.address]) is not None or device.address in ports
        ],
        numa_cells,
    )


def with_network_settings(inventory: Inventory) -> Inventory:
    """The inventory of an agent that sets network settings: PFs and VFs of network cards have its tag."""
    return replace(
        inventory,
        devices=[_tagged(device) if _has_settings(device) else device for device in inventory.devices],
    )


def _has_settings(device: DeviceReport) -> bool:
    is_network = str(device.attributes.get("class_id")).startswith(NETWORK)
    return is_network and device.offered and device.dev_type != "type-PCI"


def _tagged(device: DeviceReport) -> DeviceReport:
    return device.model_copy(update={"tags": {**device.tags, TAG: "true"}})


def _match(
    specs: DeviceSpecs, device: PciDevice, host: HostView, out_of_reach: set[PciAddress]
) -> Match | None:
    try:
        return specs.match(device, host)
    except DeviceOutOfReach as error:
        if device.address not in out_of_reach:
            LOG.warning("a device is not offered: %s", error)
            out_of_reach.add(device.address)
        return None


def _report(device: PciDevice, match: Match | None, unusable_reason: str | None) -> DeviceReport:
    attributes: dict[str, str | int | bool | None] = {
        "class_id": device.class_id,
        "driver": device.driver,
        "iommu_group": device.iommu_group,
        "netdev": device.netdev,
        "mac": device.mac,
        "serial": device.serial,
    }
    if device.dev_type is DeviceType.PF:
        attributes |= {"total_vfs": device.total_vfs, "num_vfs": device.num_vfs}
    if device.dev_type is DeviceType.VF:
        attributes["vf_num"] = device.vf_num
    if not device.exists:
        attributes["exists"] = False
    return DeviceReport(
        address=str(device.address),
        dev_type=cast(DevType, device.dev_type.value),
        vendor_id=device.vendor_id,
        product_id=device.product_id,
        numa_node=device.numa_node,
        parent_address=None if device.parent is None else str(device.parent),
        offered=match is not None and match.spec.offers(device),
        unusable_reason=unusable_reason,
        tags={} if match is None else normalised(match.tags),
        attributes=attributes,
    )
