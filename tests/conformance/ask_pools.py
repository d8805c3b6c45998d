"""The requests of one instance against the devices of one host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from common.pci.address import PciAddress
from common.pci.assignment import FreeDevice, assign
from common.pci.device import DeviceType, PciDevice
from common.pci.device_spec import DeviceSpecs
from common.pci.errors import InvalidRequest
from common.pci.host import HostView
from common.pci.matching import Affinity, Kind
from common.pci.request import NumaPolicy, PciRequest
from common.pci.status import DeviceStatus, DeviceTree, TreeDevice
from tests.conformance import nova_rules
from tests.conformance.outcome import Outcome, Vector, expected

Device = FreeDevice[PciAddress]
Rows = Counter[tuple[Any, ...]]


def compare(vector: Vector) -> Outcome:
    """The answer must agree, and what is taken must be allowed.

    Which of the allowed devices is taken is the packing policy's to choose: where Nova's choice hangs
    on the order of devices (``alts``), or on what Portclaim does not sort by, ours can be another.
    """
    want = expected(vector)
    wanted = bool(want["support"]) and want["consume"] == "ok"
    host = Host(vector)
    if host.pools() != rows(vector["pools"]):
        return Outcome(agrees=False, ours="pools", detail=f"free are {host.pools()}")
    try:
        requests = [request_of(one) for one in vector["reqs"]]
    except InvalidRequest as error:
        return Outcome(not wanted, "invalid", str(error))
    affinity = Affinity(frozenset(vector["inst_cells"] or ()), dict(vector["cells"]))
    found = assign(requests, host.free(), affinity)
    if found is None:
        return Outcome(not wanted, "refused")
    faults = nova_rules.faults(vector, [[str(device.key) for device in group] for group in found])
    if faults:
        return Outcome(agrees=False, ours="not allowed", detail=faults)
    for group in found:
        for device in group:
            host.tree.claim(device.key, "instance")
    if not wanted:
        return Outcome(agrees=False, ours="served", detail=str(found))
    ours = [taken(group) for group in found]
    for answer in (want, *vector.get("alts", ())):
        if ours == [rows(group) for group in answer.get("taken", ())]:
            return Outcome(agrees=True, ours="served alike")
    return Outcome(agrees=True, ours="served by others", detail=str(ours))


class Host:
    """The devices that device_spec takes, with those in use."""

    def __init__(self, vector: Vector) -> None:
        devices = [device_of(*row) for row in vector["devs"]]
        specs = DeviceSpecs.parse([nova_rules.as_option(vector["device_spec"])], HostView.of(devices))
        self.tracked: dict[PciAddress, tuple[PciDevice, Kind]] = {}
        for device in devices:
            match = specs.match(device)
            if match is not None:
                kind = Kind(device.dev_type, device.vendor_id, device.product_id, match.tags)
                self.tracked[device.address] = device, kind
        self.tree = DeviceTree(
            {
                address: TreeDevice(device.dev_type, device.parent)
                for address, (device, _) in self.tracked.items()
            }
        )
        for row in vector["devs"]:
            address = PciAddress.parse(row[0])
            if address in self.tracked and nova_rules.more(row).get("used"):
                self.tree.allocate(address, "somebody")

    def free(self) -> list[Device]:
        return [
            FreeDevice(
                address,
                kind,
                address if device.dev_type is DeviceType.PF else device.parent,
                device.numa_node,
            )
            for address, (device, kind) in self.tracked.items()
            if self.tree.status(address) is DeviceStatus.AVAILABLE
        ]

    def pools(self) -> Rows:
        return Counter(
            (
                device.kind.vendor_id,
                device.kind.product_id,
                device.numa_node,
                str(device.kind.dev_type),
                device.kind.tags.get("physical_network"),
            )
            for device in self.free()
        )


def rows(pools: Sequence[Sequence[Any]]) -> Rows:
    """The rows of a vector; the last number is the count."""
    return Counter({tuple(row[:-1]): row[-1] for row in pools})


def taken(group: Sequence[Device]) -> Rows:
    return Counter(
        (
            device.kind.vendor_id,
            device.kind.product_id,
            str(device.kind.dev_type),
            device.numa_node,
            device.kind.tags.get("physical_network"),
        )
        for device in group
    )


def device_of(
    address: str,
    vendor: str,
    product: str,
    dev_type: str,
    node: int | None,
    parent: str | None,
    more: dict[str, Any] | None = None,
) -> PciDevice:
    return PciDevice(
        PciAddress.parse(address),
        DeviceType(dev_type),
        vendor,
        product,
        node,
        parent=None if parent is None else PciAddress.parse(parent),
        serial=(more or {}).get("serial"),
        total_vfs=8 if dev_type == "type-PF" else 0,
    )


def request_of(request: dict[str, Any]) -> PciRequest:
    return PciRequest(
        request["count"],
        tuple(request["spec"]),
        request["alias_name"],
        NumaPolicy(request["numa_policy"] or "legacy"),
    )
