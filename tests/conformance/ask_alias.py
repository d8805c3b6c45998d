"""Aliases, and what a flavor asks for with them."""

from __future__ import annotations

from typing import Any

from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.errors import InvalidAlias
from portclaim.common.pci.extra_specs import ALIAS, NUMA_POLICY, requests_from_extra_specs
from tests.conformance.outcome import Outcome, Vector, expected


def compare(vector: Vector) -> Outcome:
    want = expected(vector)
    try:
        aliases = Aliases.parse(vector["aliases"])
    except InvalidAlias as error:
        # Nova finds a bad alias when a flavor asks for any, Portclaim at the start of the service.
        return Outcome(want["config"] != "ok" and want["r"] == "error", "config", str(error))
    if want["config"] != "ok":
        return Outcome(agrees=False, ours="aliases accepted")
    extra_specs = {ALIAS: vector["extra_spec"], NUMA_POLICY: vector.get("affinity_policy")}
    given = {key: value for key, value in extra_specs.items() if value is not None}
    try:
        requested = requests_from_extra_specs(given, aliases)
    except InvalidAlias as error:
        return Outcome(want["r"] == "error", "error", str(error))
    ours = [
        {
            "count": request.count,
            "alias_name": request.alias_name,
            "numa_policy": request.numa_policy,
            "spec": [dict(alternative) for alternative in request.spec],
        }
        for request in requested.requests
    ]
    return Outcome(want["r"] == "ok" and ours == as_we_write(want["reqs"]), "ok", str(ours))


def as_we_write(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ids in lower case: they are compared without regard to it."""
    ids = ("vendor_id", "product_id")
    return [
        request
        | {
            "spec": [
                {key: value.lower() if key in ids else value for key, value in alternative.items()}
                for alternative in request["spec"]
            ]
        }
        for request in requests
    ]
