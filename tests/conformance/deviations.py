"""Where Portclaim answers otherwise than Nova on purpose: the rules of ``deviations.toml``."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from portclaim.common.pci.request import MAX_COUNT
from tests.conformance.outcome import Outcome, Vector

FILE = Path(__file__).with_name("deviations.toml")


@dataclass(frozen=True, slots=True)
class Deviation:
    """Vectors of ``kind`` with the given mark, where our answer is ``ours``.

    The mark is a ``quirk`` or a ``need`` that the vector names, or a ``rule`` about its input.
    """

    name: str
    kind: str
    ours: str
    reason: str
    quirk: str | None = None
    need: str | None = None
    rule: str | None = None

    def covers(self, kind: str, vector: Vector, outcome: Outcome) -> bool:
        return self.kind == kind and self.ours == outcome.ours and self._marks(vector)

    def _marks(self, vector: Vector) -> bool:
        return (
            self.quirk in vector.get("quirks", ())
            or self.need in vector.get("needs", ())
            or (self.rule is not None and RULES[self.rule](vector))
        )


def more_than_can_be_asked_for(vector: Vector) -> bool:
    """A count in ``pci_passthrough:alias`` is above the limit."""
    counts = [part.rpartition(":")[2].strip() for part in (vector["extra_spec"] or "").split(",")]
    return any(count.isascii() and count.isdecimal() and int(count) > MAX_COUNT for count in counts)


def devname_that_is_no_text(vector: Vector) -> bool:
    """Some entry has a devname that is neither text nor empty."""
    value = json.loads(vector["spec"])
    entries = value if isinstance(value, list) else [value]
    names = [entry.get("devname") for entry in entries if isinstance(entry, dict)]
    return any(name and not isinstance(name, str) for name in names)


def several_requests(vector: Vector) -> bool:
    """Requests of one instance compete for the devices of the host."""
    return len(vector["reqs"]) > 1


def asks_for_a_class_or_traits(vector: Vector) -> bool:
    """Some request names what only Placement would compare."""
    alternatives = [alternative for request in vector["reqs"] for alternative in request["spec"]]
    return any(alternative.keys() & {"resource_class", "traits"} for alternative in alternatives)


def a_class_instead_of_ids(vector: Vector) -> bool:
    """Some alias names a resource class and not both ids."""
    entries = [json.loads(text) for text in vector["aliases"]]
    return any(
        "resource_class" in entry and not {"vendor_id", "product_id"} <= entry.keys() for entry in entries
    )


def bad_alias_that_no_flavor_asks_for(vector: Vector) -> bool:
    """Nova never reads its aliases, since there is no extra spec."""
    return vector["extra_spec"] is None and vector["want"]["config"] != "ok"


RULES = {
    rule.__name__: rule
    for rule in (
        a_class_instead_of_ids,
        asks_for_a_class_or_traits,
        devname_that_is_no_text,
        more_than_can_be_asked_for,
        bad_alias_that_no_flavor_asks_for,
        several_requests,
    )
}


def load() -> list[Deviation]:
    return [Deviation(**entry) for entry in tomllib.loads(FILE.read_text())["deviation"]]
