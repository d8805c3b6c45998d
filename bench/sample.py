"""What one contestant did in one round, and in several."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """``rate``: cycles or calls in a second of all clients together; ``latencies`` of each in ms.

    ``cpu``: the seconds that each part has taken, where it was measured; ``notes``: what clients counted.
    """

    rate: float
    latencies: Sequence[float]
    cpu: Mapping[str, float] = {}
    notes: Mapping[str, int] = {}

    @property
    def percentiles(self) -> dict[str, float]:
        latencies = self.latencies if len(self.latencies) > 1 else [*self.latencies] * 2
        cuts = statistics.quantiles(latencies, n=100, method="inclusive")
        return {f"p{part}_ms": round(cuts[part - 1], 3) for part in (50, 95, 99)}


def ratio(rounds: Sequence[tuple[Sample, Sample]]) -> float:
    """The median of one contestant's rate over the other's, round by round.

    A machine's speed drifts, and other people use it: only what was measured within one round is compared.
    """
    return statistics.median(one.rate / other.rate for one, other in rounds)


def merged(samples: Sequence[Sample], each: int = 1) -> dict[str, Any]:
    """The median rate of several rounds, and over all of them the percentiles and the CPU of one claim.

    ``each``: the claims of one call. The rate counts claims, a latency is that of a call.
    """
    together = Sample(
        statistics.median(sample.rate for sample in samples),
        [latency for sample in samples for latency in sample.latencies],
    )
    calls = len(together.latencies)
    result: dict[str, Any] = {
        "rate": round(together.rate * each, 2),
        "calls": calls,
        **together.percentiles,
    }
    parts = samples[0].cpu
    if parts:
        result["cpu_ms"] = {
            part: round(sum(sample.cpu[part] for sample in samples) * 1000 / calls / each, 4)
            for part in parts
        }
        result["server_ms"] = round(
            sum(value for part, value in result["cpu_ms"].items() if part != "clients"), 4
        )
    notes = sorted({name for sample in samples for name in sample.notes})
    if notes:
        result["notes"] = {name: sum(sample.notes.get(name, 0) for sample in samples) for name in notes}
    return result
