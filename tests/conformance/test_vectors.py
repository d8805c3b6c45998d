"""Every recorded answer of Nova's is ours too, but for named deviations.

``PORTCLAIM_VECTORS`` names another folder of vectors.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance import ask_alias, ask_device_spec, ask_lifecycle, ask_pools, deviations
from tests.conformance.outcome import Outcome, Vector

OWN = Path(__file__).with_name("vectors")
FOLDER = Path(os.environ.get("PORTCLAIM_VECTORS") or OWN)
FILES = sorted(FOLDER.glob("*.jsonl"))
KINDS: dict[str, tuple[str, Callable[[Vector], Outcome]]] = {  # by the key that only this kind has
    "spec": ("device_spec", ask_device_spec.compare),
    "aliases": ("alias", ask_alias.compare),
    "ops": ("lifecycle", ask_lifecycle.compare),
    "reqs": ("pools", ask_pools.compare),
}


def test_there_are_vectors() -> None:
    """A folder that is named may hold any of the kinds, but not nothing; ours holds all."""
    kinds = {kind_of(vector)[0] for file in FILES for vector in read(file)}
    assert kinds
    assert kinds == {kind for kind, _ in KINDS.values()} or FOLDER != OWN


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_answers_are_novas(file: Path, record_property: Callable[[str, object], None]) -> None:
    allowed = deviations.load()
    agreed, deviating, disagreements = 0, Counter[str](), []
    for vector in read(file):
        kind, compare = kind_of(vector)
        outcome = compare(vector)
        if outcome.agrees:
            agreed += 1
        elif covering := [one.name for one in allowed if one.covers(kind, vector, outcome)]:
            deviating[covering[0]] += 1
        else:
            disagreements.append(f"{vector['id']}: {outcome.ours} {outcome.detail}")
    total = agreed + deviating.total() + len(disagreements)
    record_property("conformance", summary(file.name, agreed, total, deviating))
    assert disagreements == []


def summary(name: str, agreed: int, total: int, deviating: Counter[str]) -> str:
    reasons = "".join(f"; {count} deviate: {reason}" for reason, count in sorted(deviating.items()))
    return f"{name}: {agreed} of {total} agree{reasons}"


def kind_of(vector: Vector) -> tuple[str, Callable[[Vector], Outcome]]:
    return next(known for key, known in KINDS.items() if key in vector)


def read(file: Path) -> Iterator[Vector]:
    with file.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())
