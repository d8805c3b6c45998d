"""The life of a host's devices, operation by operation."""

from __future__ import annotations

from typing import Any

from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.errors import InvalidTransition
from portclaim.common.pci.status import DeviceStatus, DeviceTree, TreeDevice
from tests.conformance.outcome import Outcome, Vector, expected

LETTERS = {
    ".": DeviceStatus.AVAILABLE,
    "C": DeviceStatus.CLAIMED,
    "A": DeviceStatus.ALLOCATED,
    "u": DeviceStatus.UNCLAIMABLE,
    "x": DeviceStatus.UNAVAILABLE,
    "R": DeviceStatus.REMOVED,
}
LETTER_OF = {status: letter for letter, status in LETTERS.items()}
TYPES = {"PF": DeviceType.PF, "VF": DeviceType.VF, "PCI": DeviceType.PCI}


def compare(vector: Vector) -> Outcome:
    want = expected(vector)
    tree = tree_of(vector)
    for number, (operation, wanted) in enumerate(zip(vector["ops"], want["steps"], strict=True), 1):
        ours = step(tree, *operation, devices=len(vector["devs"]))
        if ours != [("ok" if wanted[0] == "ok" else "refused"), *wanted[1:]]:
            return Outcome(
                agrees=False, ours="stricter", detail=f"step {number}, {operation}: {ours}, not {wanted}"
            )
    owners = {str(place): tree.owner(place) for place in range(len(vector["devs"])) if tree.owner(place)}
    return Outcome(
        {key: owner for key, owner in want["owners"].items() if owner} == owners, "owners", str(owners)
    )


def step(tree: DeviceTree[int], operation: str, place: int, instance: str | None, devices: int) -> list[Any]:
    """The answer as the vectors write it: ok or refused, all statuses, and what ``free`` gave back."""
    freed: list[list[int]] = []
    try:
        match operation:
            case "claim" | "allocate":
                getattr(tree, operation)(place, instance)
            case "free":
                freed = [sorted(tree.free(place, instance))]
            case "remove":
                tree.remove(place)
    except InvalidTransition:
        return ["refused", statuses(tree, devices)]
    return ["ok", statuses(tree, devices), *freed]


def statuses(tree: DeviceTree[int], devices: int) -> str:
    return "".join(LETTER_OF[tree.status(place)] for place in range(devices))


def tree_of(vector: Vector) -> DeviceTree[int]:
    """The parent of a VF may be an address that is not tracked; then the VF stands alone."""
    init = vector.get("init", {"status": "." * len(vector["devs"]), "owner": {}})
    devices = {}
    for place, (_address, kind, *parent) in enumerate(vector["devs"]):
        devices[place] = TreeDevice(
            TYPES[kind],
            parent[0] if parent and isinstance(parent[0], int) else None,
            LETTERS[init["status"][place]],
            init["owner"].get(str(place)),
        )
    return DeviceTree(devices)
