"""The NUMA cells of a host with their sockets and CPUs, as the kernel numbers them."""

from __future__ import annotations

import re

from portclaim.common.rpc.agent_messages import NumaCell
from portclaim.services.compute_agent.sysfs import SysfsTree

_NODES = "devices/system/node"
_NODE = re.compile(r"node(\d+)")


def read_numa_cells(tree: SysfsTree) -> list[NumaCell]:
    """The cells in order of their id; none where the kernel was built without NUMA."""
    matches = (_NODE.fullmatch(name) for name in tree.names(_NODES) or ())
    return [_cell(tree, node) for node in sorted(int(match[1]) for match in matches if match)]


def _cell(tree: SysfsTree, node: int) -> NumaCell:
    cpus = parse_cpulist(tree.text(f"{_NODES}/node{node}/cpulist") or "")
    sockets = {tree.number(f"devices/system/cpu/cpu{cpu}/topology/physical_package_id") for cpu in cpus}
    return NumaCell(id=node, socket=sockets.pop() if len(sockets) == 1 else None, cpus=cpus)


def parse_cpulist(text: str) -> list[int]:
    """The kernel's list format: ``0-3,8`` is [0, 1, 2, 3, 8]; an empty text is no CPU."""
    cpus: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus
