"""Where Portclaim answers otherwise than Nova on purpose: the rules of ``deviations.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from common.pci.request import MAX_COUNT
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


def bad_alias_that_no_flavor_asks_for(vector: Vector) -> bool:
    """Nova never reads its aliases, since there is no extra spec."""
    return vector["extra_spec"] is None and vector["want"]["config"] != "ok"


RULES = {rule.__name__: rule for rule in (more_than_can_be_asked_for, bad_alias_that_no_flavor_asks_for)}


def load() -> list[Deviation]:
    return [Deviation(**entry) for entry in tomllib.loads(FILE.read_text())["deviation"]]
