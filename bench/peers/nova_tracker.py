"""Nova's tracker of one host's PCI devices, in memory, timed. Runs in the peers' environment.

``python bench/peers/nova_tracker.py PORTS VFS SECONDS``. Prints a JSON object: for a PF and for a VF, what it
takes to claim one, and to free it again. Nothing of Portclaim's is imported here, and no database is asked:
what Nova's compute service would write through its conductor comes on top.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from unittest import mock
from uuid import uuid4

from nova import conf, context, objects
from nova.pci import manager

PF, VF = "1572", "154c"
SPEC = [json.dumps({"vendor_id": "8086", "product_id": product}) for product in (PF, VF)]


def devices(ports: int, vfs: int) -> Iterator[dict[str, object]]:
    """As libvirt's driver reports them. A port has its own bus, its VFs are there and on the next."""
    for port in range(ports):
        pf = f"0000:{port * 2:02x}:00.0"
        facts = {"vendor_id": "8086", "compute_node_id": 1, "status": "available", "numa_node": 0}
        yield {**facts, "address": pf, "product_id": PF, "dev_type": "type-PF", "label": f"label_8086_{PF}"}
        for place in range(8, vfs + 8):
            bus, function = port * 2 + place // 256, place % 256
            yield {
                **facts,
                "address": f"0000:{bus:02x}:{function // 8:02x}.{function % 8}",
                "parent_addr": pf,
                "product_id": VF,
                "dev_type": "type-VF",
                "label": f"label_8086_{VF}",
            }


def tracker(ports: int, vfs: int) -> manager.PciDevTracker:
    """A tracker of such a host with all devices available."""
    found = [objects.PciDevice.create(None, device) for device in devices(ports, vfs)]
    for number, device in enumerate(found, 1):
        device.id, device.instance_uuid = number, None
    with mock.patch("nova.objects.PciDeviceList.get_by_compute_node") as read:
        read.return_value = objects.PciDeviceList(objects=found)
        node = objects.ComputeNode(id=1, numa_topology=None)
        return manager.PciDevTracker(context.get_admin_context(), node)


def timed(tracked: manager.PciDevTracker, product: str, dev_type: str, seconds: float) -> dict[str, object]:
    """Claim and free one device again and again; the median CPU times in ms."""
    claims, frees = [], []
    asked = [{"vendor_id": "8086", "product_id": product, "dev_type": dev_type}]
    ctxt = context.get_admin_context()
    until = time.monotonic() + seconds
    while not claims or time.monotonic() < until:
        instance = str(uuid4())
        request = objects.InstancePCIRequest(count=1, spec=asked, request_id=str(uuid4()), alias_name="nic")
        requests = objects.InstancePCIRequests(requests=[request], instance_uuid=instance)
        begin = time.process_time()
        claimed = tracked.claim_instance(ctxt, requests, None)
        middle = time.process_time()
        tracked.free_instance_claims(ctxt, {"uuid": instance, "id": 1})
        frees.append(time.process_time() - middle)
        claims.append(middle - begin)
        assert len(claimed) == 1
        assert claimed[0].status == "available"
    return {"claim_ms": _median_ms(claims), "free_ms": _median_ms(frees), "claims": len(claims)}


def _median_ms(seconds: list[float]) -> float:
    return round(sorted(seconds)[len(seconds) // 2] * 1000, 2)


def main() -> None:
    ports, vfs, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    objects.register_all()
    conf.CONF([], project="nova", default_config_files=[])
    conf.CONF.set_override("device_spec", SPEC, group="pci")
    tracked = tracker(ports, vfs)
    assert len(tracked.stats.get_free_devs()) == ports * (vfs + 1)
    print(
        json.dumps(
            {
                "PF": timed(tracked, PF, "type-PF", seconds),
                "VF": timed(tracked, VF, "type-VF", seconds),
            }
        )
    )


if __name__ == "__main__":
    main()
