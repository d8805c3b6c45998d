"""What one contestant did in one round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Sample(NamedTuple):
    """``rate``: cycles or calls in a second of all clients together; ``latencies`` of each in ms."""

    rate: float
    latencies: Sequence[float]

    @property
    def percentiles(self) -> dict[str, float]:
        cuts = statistics.quantiles(self.latencies, n=100)
        return {f"p{part}_ms": round(cuts[part - 1], 3) for part in (50, 95, 99)}


def ratio(rounds: Sequence[tuple[Sample, Sample]]) -> float:
    """The median of one contestant's rate over the other's, round by round.

    A machine's speed drifts, and other people use it: only what was measured within one round is compared.
    """
    return statistics.median(one.rate / other.rate for one, other in rounds)


def merged(samples: Sequence[Sample]) -> dict[str, float]:
    """The median rate of several rounds, and the percentiles over all of them."""
    together = Sample(
        statistics.median(sample.rate for sample in samples),
        [latency for sample in samples for latency in sample.latencies],
    )
    return {"rate": round(together.rate, 1), **together.percentiles}
