"""Build simulated hosts with given numbers of ports, VFs, accelerators and NUMA nodes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from portclaim.common.pci.address import MAX_SLOT, PciAddress
from portclaim.common.pci.routing import BUSES, vf_addresses
from portclaim.services.compute_agent.simulation import (
    ACCELERATOR,
    ROOT_PORT,
    VF_OFFSET,
    VF_STRIDE,
    SimulatedTree,
)


@dataclass(frozen=True, slots=True)
class HostShape:
    """What a simulated host has. Each NUMA node has one socket; the nodes get ports and accelerators in turn.

    A port can have ``vfs_per_port`` VFs. At first it has ``num_vfs`` of them; None: all.
    """

    ports: int = 2
    vfs_per_port: int = 8
    num_vfs: int | None = None
    accelerators: int = 1
    numa_nodes: int = 1
    cpus_per_node: int = 4
    domain: int = 0


def build_host(root: Path, shape: HostShape, name: str) -> SimulatedTree:
    """Build the tree at ``root``, wholly or not at all: a killed build leaves only ``<root>.partial``.

    Raises FileExistsError if ``root`` exists, ValueError if the shape needs more buses than a
    PCI domain has.
    """
    if root.exists():
        raise FileExistsError(f"{root} already exists")
    partial = root.with_name(f"{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    tree = SimulatedTree.create(partial, name)
    for node in range(shape.numa_nodes):
        first = node * shape.cpus_per_node
        tree.add_numa_node(node, node, range(first, first + shape.cpus_per_node))
    sockets = [_RootComplex(tree, shape, node) for node in range(shape.numa_nodes)]
    for n in range(shape.ports):
        sockets[n % len(sockets)].add_port()
    for n in range(shape.accelerators):
        sockets[n % len(sockets)].add_accelerator()
    partial.rename(root)
    return SimulatedTree(root)


class _RootComplex:
    """The PCI buses of one NUMA node: a root port for each card, with bus numbers in ascending order."""

    def __init__(self, tree: SimulatedTree, shape: HostShape, node: int) -> None:
        self._tree, self._shape, self._node = tree, shape, node
        share = BUSES // shape.numa_nodes
        self._bus = node * share
        self._path = Path(f"devices/pci{shape.domain:04x}:{self._bus:02x}")
        self._end = self._bus + share
        self._next_bus = self._bus + 1
        self._root_ports = 0

    def add_port(self) -> None:
        shape = self._shape
        address = self._function(self._next_bus)
        vfs = vf_addresses(address, VF_OFFSET, VF_STRIDE, shape.vfs_per_port)
        path = self._add_root_port(buses=1 + (vfs[-1].bus - address.bus if vfs else 0))
        self._tree.add_port(path, address, shape.vfs_per_port, self._node)
        self._tree.set_num_vfs(address, shape.vfs_per_port if shape.num_vfs is None else shape.num_vfs)

    def add_accelerator(self) -> None:
        address = self._function(self._next_bus)
        self._tree.add_function(self._add_root_port(buses=1), address, ACCELERATOR, self._node)

    def _add_root_port(self, buses: int) -> Path:
        slot, function = divmod(self._root_ports + 8, 8)  # slot 0 is the host bridge's
        self._root_ports += 1
        self._next_bus += buses
        if self._next_bus > self._end or slot > MAX_SLOT:
            raise ValueError(
                f"{self._shape} needs more buses than a PCI domain has: ask for fewer ports or VFs"
            )
        address = self._function(self._bus, slot, function)
        return self._tree.add_function(self._path, address, ROOT_PORT, self._node)

    def _function(self, bus: int, slot: int = 0, function: int = 0) -> PciAddress:
        return PciAddress(self._shape.domain, bus, slot, function)
