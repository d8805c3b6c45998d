"""The requests of one instance against the devices of one host."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.errors import InvalidRequest
from portclaim.common.pci.filters import Affinity, Kind
from portclaim.common.pci.host import HostView
from portclaim.common.pci.matching import FreeDevice, assign
from portclaim.common.pci.request import NumaPolicy, PciRequest
from portclaim.common.pci.status import DeviceStatus, DeviceTree, TreeDevice
from tests.conformance import nova_rules
from tests.conformance.ask_device_spec import as_text
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
    for device in itertools.chain.from_iterable(found):
        host.tree.claim(device.key, "instance")
    fault = host.judge.fault([[str(device.key) for device in group] for group in found])
    for answer in (want, *vector.get("alts", ())):
        if [taken(group) for group in found] == [rows(group) for group in answer.get("taken", ())]:
            fault = fault or leftovers_differ(host, found, rows(answer["pools"]))
            break
    return Outcome(wanted and not fault, fault or "served", str(found))


def leftovers_differ(host: Host, found: Sequence[Sequence[Device]], wanted: Rows) -> str:
    """As much as Nova leaves must be left of each kind that was taken.

    Of a port's other kind there may be more or less: it hangs on from which ports VFs were taken.
    """
    devices = list(itertools.chain.from_iterable(found))
    types = {device.kind.dev_type for device in devices}
    if DeviceType.PF in types and len(types) > 1:
        return ""
    left = host.pools()
    return "".join(
        f"left of {kind}: {left[kind]}" for kind in map(pool_of, devices) if left[kind] != wanted[kind]
    )


class Host:
    """The devices that device_spec takes, with those in use."""

    def __init__(self, vector: Vector) -> None:
        devices = [device_of(row) for row in vector["devs"]]
        specs = DeviceSpecs.parse([json.dumps(vector["device_spec"])], HostView.of(devices))
        self.tracked: dict[PciAddress, tuple[PciDevice, Kind]] = {}
        entry_of: dict[str, int] = {}
        for device in devices:
            match = specs.match(device)
            if match is not None:
                kind = Kind(device.dev_type, device.vendor_id, device.product_id, match.tags)
                self.tracked[device.address] = device, kind
                entry_of[str(device.address)] = match.entry
        self.judge = nova_rules.Judge(vector, entry_of)
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
        return Counter(map(pool_of, self.free()))


def rows(pools: Sequence[Sequence[Any]]) -> Rows:
    """The rows of a vector; the last number is the count."""
    return Counter({tuple(row[:-1]): row[-1] for row in pools})


def pool_of(device: Device) -> tuple[Any, ...]:
    kind = device.kind
    network = kind.tags.get("physical_network")
    return kind.vendor_id, kind.product_id, device.numa_node, str(kind.dev_type), network


def taken(group: Sequence[Device]) -> Rows:
    """As in ``want.taken``, which has the type before the node."""
    pools = map(pool_of, group)
    return Counter((vendor, product, kind, node, network) for vendor, product, node, kind, network in pools)


def device_of(row: Sequence[Any]) -> PciDevice:
    address, vendor, product, dev_type, node, parent, *_ = row
    return PciDevice(
        PciAddress.parse(address),
        DeviceType(dev_type),
        vendor,
        product,
        node,
        parent=None if parent is None else PciAddress.parse(parent),
        serial=nova_rules.more(row).get("serial"),
        total_vfs=8 if dev_type == "type-PF" else 0,
    )


def request_of(request: dict[str, Any]) -> PciRequest:
    return PciRequest(
        request["count"],
        tuple(
            {key: None if value is None else as_text(value) for key, value in alternative.items()}
            for alternative in request["spec"]
        ),
        request["alias_name"],
        NumaPolicy(request["numa_policy"] or "legacy"),
    )
