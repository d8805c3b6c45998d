"""How an answer of ours compares with Nova's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Vector = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """``ours`` is our answer in a word, as deviations name it; ``detail`` is all of it, for people."""

    agrees: bool
    ours: str
    detail: str = ""


def expected(vector: Vector) -> Any:
    """Nova's answer, with the fault repaired where the answer rests on one."""
    return vector.get("fixed", vector["want"])
