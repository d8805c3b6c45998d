"""What a request allows, written down a second time, straight from Nova's rules and as dumb as can be.

The comparison of pools uses it as a judge of what was taken, so that the code under test does not
judge itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

TRUE = {"1", "t", "true", "on", "y", "yes"}
IGNORED = ("resource_class", "traits")


def more(row: Sequence[Any]) -> dict[str, Any]:
    """The optional facts at the end of a device's row."""
    return row[6] if len(row) > 6 else {}


class Judge:
    """Knows the question, and which entry of device_spec takes each of its devices."""

    def __init__(self, vector: dict[str, Any], entry_of: Mapping[str, int]) -> None:
        self._rows = {row[0]: row for row in vector["devs"] if row[0] in entry_of}
        self._pools = {
            address: pool_keys(row, vector["device_spec"][entry_of[address]])
            for address, row in self._rows.items()
        }
        self._used = [address for address, row in self._rows.items() if more(row).get("used")]
        self._requests = vector["reqs"]
        self._cells = vector["inst_cells"] or []
        self._sockets = dict(vector["cells"])

    def fault(self, taken: Sequence[Sequence[str]]) -> str:
        """What is wrong with the addresses taken for each request; empty if nothing is."""
        held = list(self._used)
        for request, group in zip(self._requests, taken, strict=True):
            if len(group) != request["count"]:
                return f"{len(group)} devices for {request}"
            before = list(held)
            for address in group:
                if not does(request, self._pools[address]):
                    return f"{address} does not do for {request}"
                if any(self._exclude(address, other) for other in held):
                    return f"{address} excludes what is held: {held}"
                held.append(address)
            if not self._is_near_enough(request, group, before):
                return f"{group} is too far for {request}"
        return ""

    def _exclude(self, one: str, other: str) -> bool:
        """The same device, or a PF and a VF of its own."""
        return one == other or self._rows[one][5] == other or self._rows[other][5] == one

    def _is_near_enough(self, request: dict[str, Any], group: Sequence[str], held: Sequence[str]) -> bool:
        """Near devices alone if they suffice, and what the policy allows beyond them if not.

        With several requests others may need the near ones.
        """
        nodes = {self._rows[address][4] for address in group}
        if not self._cells or nodes <= set(self._cells):
            return True
        beyond = self._allowed_beyond(request["numa_policy"] or "legacy")
        near = [
            address
            for address, row in self._rows.items()
            if row[4] in self._cells
            and does(request, self._pools[address])
            and not any(self._exclude(address, other) for other in held)
        ]
        return nodes <= {*self._cells, *beyond} and (len(self._requests) > 1 or len(near) < request["count"])

    def _allowed_beyond(self, policy: str) -> set[int | None]:
        match policy:
            case "legacy":
                return {None}
            case "preferred":
                return {None, *(row[4] for row in self._rows.values())}
            case "socket" if None not in self._sockets.values():
                own = {self._sockets.get(cell) for cell in self._cells}
                return {node for node, socket in self._sockets.items() if socket in own}
        return set()


def pool_keys(row: Sequence[Any], entry: dict[str, Any]) -> dict[str, Any]:
    """All that a request can ask of a device that this entry takes."""
    _address, vendor, product, dev_type, *_ = row
    own = {"vendor_id": vendor, "product_id": product, "dev_type": dev_type}
    tags = {key: value for key, value in entry.items() if key not in (*own, "address", "devname", *IGNORED)}
    for key in ("managed", "live_migratable"):
        if tags.get(key) is not None:
            tags[key] = "true" if str(tags[key]).lower() in TRUE else "false"
    if dev_type != "type-PCI" and tags.get("remote_managed") is None:
        tags["remote_managed"] = "false"
    return tags | own


def does(request: dict[str, Any], pool: dict[str, Any]) -> bool:
    specs = request["spec"]
    if not any(
        all(lower(pool.get(key)) == lower(value) for key, value in spec.items() if key not in IGNORED)
        for spec in specs
    ):
        return False
    if pool["dev_type"] in ("type-PF", "vdpa") and not any(
        spec.get("dev_type") == pool["dev_type"] for spec in specs
    ):
        return False
    return lower(pool.get("remote_managed")) not in TRUE or any(
        lower(spec.get("remote_managed")) in TRUE for spec in specs
    )


def lower(value: Any) -> Any:
    """A JSON boolean is as good as the word: Nova never matches it, we do."""
    return (
        json.dumps(value) if isinstance(value, bool) else value.lower() if isinstance(value, str) else value
    )
