"""What a request allows, written down a second time, straight from Nova's rules and as dumb as can be.

The comparison of pools uses it as a judge of what was taken, so that the code under test does not
judge itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

TRUE = {"1", "t", "true", "on", "y", "yes"}
IGNORED = ("resource_class", "traits")


def as_option(entries: list[dict[str, Any]]) -> str:
    return json.dumps(entries)


def more(row: Sequence[Any]) -> dict[str, Any]:
    """The optional facts at the end of a device's row."""
    return row[6] if len(row) > 6 else {}


def fault(vector: dict[str, Any], taken: Sequence[Sequence[str]]) -> str:
    """What is wrong with the addresses taken for each request; empty if nothing is."""
    by_address = {row[0]: row for row in vector["devs"]}
    held = [row[0] for row in vector["devs"] if more(row).get("used") and pool_keys(vector, row)]
    for request, group in zip(vector["reqs"], taken, strict=True):
        if len(group) != request["count"]:
            return f"{len(group)} devices for {request}"
        for address in group:
            if not does(request, pool_keys(vector, by_address[address])):
                return f"{address} does not do for {request}"
            if any(excludes(by_address[address], by_address[other]) for other in held):
                return f"{address} excludes what is held: {held}"
            held.append(address)
        if not numa_allows(vector, request, group, held):
            return f"{group} is too far for {request}"
    return ""


def pool_keys(vector: dict[str, Any], row: Sequence[Any]) -> dict[str, Any]:
    """All that a request can ask of a device."""
    address, vendor, product, dev_type, _node, parent, *_ = row
    for entry in vector["device_spec"]:
        ids = all(
            entry.get(key, "*") in ("*", own) or entry[key].lower() == own
            for key, own in (("vendor_id", vendor), ("product_id", product))
        )
        serial = str(entry.get("remote_managed")).lower() not in TRUE or more(row).get("serial")
        if ids and serial and entry.get("address", address) in (address, parent):
            tags = {
                key: value
                for key, value in entry.items()
                if key not in ("vendor_id", "product_id", "address", *IGNORED)
            }
            for key in ("managed", "live_migratable"):
                if key in tags:
                    tags[key] = "true" if str(tags[key]).lower() in TRUE else "false"
            if dev_type != "type-PCI" and tags.get("remote_managed") is None:
                tags["remote_managed"] = "false"
            return tags | {"vendor_id": vendor, "product_id": product, "dev_type": dev_type}
    return {}


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


def excludes(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """The same device, or a PF and a VF of its own."""
    return one[0] == other[0] or one[5] == other[0] or other[5] == one[0]


def numa_allows(
    vector: dict[str, Any], request: dict[str, Any], group: Sequence[str], held: Sequence[str]
) -> bool:
    """Near devices alone if they suffice, and what the policy allows beyond them if not."""
    cells, policy = vector["inst_cells"], request["numa_policy"] or "legacy"
    if not cells:
        return True
    node_of = {row[0]: row[4] for row in vector["devs"]}
    if all(node_of[address] in cells for address in group):
        return True
    sockets = dict(vector["cells"])
    beyond = {
        "required": [],
        "legacy": [None],
        "preferred": [None, *node_of.values()],
        "socket": []
        if None in sockets.values()
        else [node for node, socket in sockets.items() if socket in {sockets.get(cell) for cell in cells}],
    }[policy]
    return all(node_of[address] in [*cells, *beyond] for address in group) and not near_suffice(
        vector, request, [address for address in held if address not in group]
    )


def near_suffice(vector: dict[str, Any], request: dict[str, Any], held: Sequence[str]) -> bool:
    """With one request alone: are there enough near devices? With several, others may need them."""
    if len(vector["reqs"]) > 1:
        return False
    by_address = {row[0]: row for row in vector["devs"]}
    near = [
        row
        for row in vector["devs"]
        if row[4] in vector["inst_cells"]
        and (keys := pool_keys(vector, row))
        and does(request, keys)
        and not any(excludes(row, by_address[other]) for other in held)
    ]
    return len(near) >= request["count"]
