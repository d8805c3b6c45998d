"""One device_spec entry against one device."""

from __future__ import annotations

import json
from typing import Any

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs, Match
from portclaim.common.pci.errors import DeviceOutOfReach, InvalidDeviceSpec
from portclaim.common.pci.host import HostView
from tests.conformance.outcome import Outcome, Vector, expected

ON_DEVICE = ("managed", "live_migratable")


def compare(vector: Vector) -> Outcome:
    want = expected(vector)
    host = host_of(vector["host"])
    placement = bool(vector.get("report_in_placement"))
    try:
        specs = DeviceSpecs.parse([vector["spec"]], host, report_in_placement=placement)
    except InvalidDeviceSpec as error:
        return Outcome(want["r"] == "invalid", "invalid", str(error))
    try:
        match = specs.match(device_of(vector["dev"]), host)
    except DeviceOutOfReach as error:
        return Outcome(want["r"] == "device_skipped", "device_skipped", str(error))
    if match is None:
        return Outcome(want["r"] == "no_match", "no_match")
    return Outcome(answer(match) == as_we_write(want), "match", str(answer(match)))


def answer(match: Match) -> dict[str, Any]:
    tags = dict(match.tags)
    stored = {name: tags[name] for name in ON_DEVICE if name in tags}
    return {"r": "match", "entry": match.entry, "tags": tags, "dev_tags": stored}


def as_we_write(want: dict[str, Any]) -> dict[str, Any]:
    """Nova keeps the JSON value of a tag; ours are text, and null is no tag. Both mean the same."""
    if want["r"] != "match":
        return want
    return want | {name: tags_as_text(want[name]) for name in ("tags", "dev_tags")}


def tags_as_text(tags: dict[str, Any]) -> dict[str, str]:
    return {name: as_text(value) for name, value in tags.items() if value is not None}


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def device_of(dev: dict[str, Any]) -> PciDevice:
    return PciDevice(
        address=PciAddress.parse(dev["address"]),
        dev_type=DeviceType(dev["dev_type"]),
        vendor_id=dev["vendor_id"],
        product_id=dev["product_id"],
        numa_node=dev.get("numa_node"),
        parent=PciAddress.parse(dev["parent_addr"]) if dev.get("parent_addr") else None,
        serial=dev.get("capabilities", {}).get("vpd", {}).get("card_serial_number"),
    )


def host_of(host: dict[str, Any]) -> HostView:
    pfs = {
        PciAddress.parse(address): PciDevice(
            PciAddress.parse(address), DeviceType.PF, vendor, product, total_vfs=8, vf_product_id=vf_product
        )
        for address, (vendor, product, vf_product) in host.get("pfs", {}).items()
    }
    return HostView(pfs, {name: PciAddress.parse(at) for name, at in host.get("netdevs", {}).items()})
