"""Make a Nova cell's database: with Nova's own migrations, and filled through Nova's own objects.

``python tests/nova/make_cell.py URL`` runs in the peers' environment (``requirements-peers.txt``), on an
empty database. Nothing of Portclaim's is imported here. What the cell has is described below, host by host.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from uuid import NAMESPACE_DNS, uuid5

from nova import conf, config, context, objects
from nova.db import migration
from nova.db.main import api
from nova.pci import manager

PF, VF, GPU = ("8086", "1572"), ("8086", "154c"), ("10de", "20b5")
PORTS = "0000:01:00.0", "0000:02:00.0"
VFS = 4
ACCELERATOR = "0000:03:00.0"
SPEC = [
    {"vendor_id": PF[0], "product_id": PF[1], "physical_network": "physnet1"},
    {"vendor_id": VF[0], "product_id": VF[1], "physical_network": "physnet1"},
    {"vendor_id": GPU[0], "product_id": GPU[1]},
]
NIC_VF = {"vendor_id": VF[0], "product_id": VF[1], "dev_type": "type-VF"}
NIC_PF = {"vendor_id": PF[0], "product_id": PF[1], "dev_type": "type-PF"}
ANY_GPU = {"vendor_id": GPU[0], "product_id": GPU[1], "dev_type": "type-PCI"}
PORT = {"physical_network": "physnet1", "remote_managed": "False"}


def instance_id(name: str) -> str:
    """The UUID of an instance, the same in every run."""
    return str(uuid5(NAMESPACE_DNS, f"{name}.cell.example"))


class Cell:
    """Talks to Nova as its compute service does."""

    def __init__(self) -> None:
        self._context = context.get_admin_context()

    def host(self, name: str, devices: Sequence[dict[str, object]]) -> manager.PciDevTracker:
        """A compute node that reports these devices."""
        node = objects.ComputeNode(
            self._context,
            uuid=str(uuid5(NAMESPACE_DNS, name)),
            host=name,
            hypervisor_hostname=f"{name}.cell.example",
            hypervisor_type="QEMU",
            hypervisor_version=8000000,
            cpu_info="",
            **dict.fromkeys(("vcpus", "memory_mb", "local_gb"), 64),
            **dict.fromkeys(("vcpus_used", "memory_mb_used", "local_gb_used"), 0),
        )
        node.create()
        tracker = manager.PciDevTracker(self._context, node)
        tracker.update_devices_from_hypervisor_resources(json.dumps(devices))
        tracker.save(self._context)
        tracker.host = name
        return tracker

    def instance(
        self,
        name: str,
        tracker: manager.PciDevTracker,
        *asked: tuple[int, str | None, dict[str, str]],
        attached: bool = True,
        request_id: str | None = None,
        vm_state: str = "active",
    ) -> objects.Instance:
        """An instance whose devices the host has claimed and, if ``attached``, allocated.

        Each of ``asked`` is a count, the alias (None: a Neutron port) and what the request says. With
        ``request_id`` the devices remember another request than the instance has.
        """
        requests = [
            objects.InstancePCIRequest(
                count=count,
                alias_name=alias,
                spec=[spec],
                request_id=str(uuid5(NAMESPACE_DNS, f"{name}/{number}")),
                numa_policy="legacy",
            )
            for number, (count, alias, spec) in enumerate(asked)
        ]
        uuid = instance_id(name)
        pci_requests = objects.InstancePCIRequests(instance_uuid=uuid, requests=requests)
        instance = objects.Instance(
            self._context,
            uuid=uuid,
            host=tracker.host,
            node=f"{tracker.host}.cell.example",
            compute_id=tracker.node_id,
            user_id="user",
            project_id="project",
            vm_state=vm_state,
            display_name=name,
            pci_requests=pci_requests,
        )
        instance.create()
        instance.pci_devices = objects.PciDeviceList(objects=[])
        devices = tracker.claim_instance(self._context, pci_requests, None)
        assert devices, f"{name} gets no devices"
        if request_id is not None:
            for device in devices:
                device.request_id = request_id
        if attached:
            tracker.allocate_instance(instance)
        tracker.save(self._context)
        return instance

    def fill(self) -> None:
        """All hosts of the cell."""
        # As an operator finds them: on node-1 everything is as it should be.
        node1 = self.host("node-1", list(full_host()))
        self.instance("web", node1, (2, "nic-vf", NIC_VF))
        self.instance("port", node1, (1, None, PORT | {"dev_type": "type-VF"}))
        self.instance("whole", node1, (1, "nic-pf", NIC_PF))
        self.instance("starting", node1, (1, "gpu", ANY_GPU), attached=False)
        # VFs only: Nova has no row for their PF.
        node2 = self.host("node-2", [device for device in full_host() if device["dev_type"] == "type-VF"])
        self.instance("mixed", node2, (1, "nic-vf", NIC_VF), (1, None, PORT))
        # What an import cannot decide.
        node3 = self.host("node-3", list(full_host()))
        self.instance("vf-of-both", node3, (1, "nic-vf", NIC_VF))
        holder = self.instance("pf-of-both", node3, (1, "gpu", ANY_GPU))
        other = str(uuid5(NAMESPACE_DNS, "another request"))
        self.instance("unknown-request", node3, (1, "nic-pf", NIC_PF), request_id=other)
        [pf] = [device for device in node3.pci_devs if device.address == PORTS[0]]
        pf.status, pf.instance_uuid = "allocated", holder.uuid
        pf.request_id = holder.pci_requests.requests[0].request_id
        node3.save(self._context)
        # Nothing is in use; and a host that was deleted.
        self.host("node-4", list(full_host()))
        self.host("node-5", list(full_host()))
        names = "node-5", "node-5.cell.example"
        objects.ComputeNode.get_by_host_and_nodename(self._context, *names).destroy()


def full_host() -> Iterator[dict[str, object]]:
    """What libvirt's driver reports of a host with two ports and an accelerator."""
    for bus, port in enumerate(PORTS, 1):
        yield device(port, PF, "type-PF")
        for number in range(VFS):
            yield device(f"0000:{bus:02x}:10.{2 * number}", VF, "type-VF", parent_addr=port)
    yield device(ACCELERATOR, GPU, "type-PCI")


def device(address: str, ids: tuple[str, str], dev_type: str, **more: str) -> dict[str, object]:
    vendor, product = ids
    return {
        "address": address,
        "dev_id": f"pci_{address}",
        "vendor_id": vendor,
        "product_id": product,
        "label": f"label_{vendor}_{product}",
        "numa_node": 0,
        "dev_type": dev_type,
        **more,
    }


def main() -> None:
    url = sys.argv[1]
    config.parse_args([], default_config_files=[], configure_db=False)
    conf.CONF.set_override("connection", url, group="database")
    conf.CONF.set_override("device_spec", [json.dumps(entry) for entry in SPEC], group="pci")
    api.configure(conf.CONF)
    objects.register_all()
    migration.db_sync()
    Cell().fill()


if __name__ == "__main__":
    main()
