"""Counters, gauges and histograms that cost nothing until a process switches them on.

All metrics are made when their module is imported, and their list is the reference page. A process that
exports metrics calls :func:`switch_on`. Until then ``prometheus_client`` is not imported, and counting is one
comparison.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily

Labels = Mapping[str, str | tuple[str, ...]]
"""The name of each label, and what its values are: in words, or all of them.

A label has few values: no ids, no host names.
"""

METRICS: list[Metric] = []
"""Every metric that a module has made, in their order."""

_PREFIX = "portclaim_"
_is_on = False


class Metric:
    """A named number with labels. ``services``: which services have it."""

    kind: ClassVar[str]

    def __init__(
        self, name: str, text: str, labels: Labels | None = None, *, services: Sequence[str] = ()
    ) -> None:
        self.name = _PREFIX + name
        self.text = text
        self.labels = dict(labels or {})
        self.services = tuple(services)
        self._made: Any = None
        METRICS.append(self)

    def begin(self, registry: CollectorRegistry) -> None:
        """Count from now on. A metric with one label whose values are known has all of them at once."""
        self._made = self._make(registry)
        known = [values for values in self.labels.values() if isinstance(values, tuple)]
        if len(self.labels) == 1:
            for value in known[0] if known else ():
                self._made.labels(value)

    def _make(self, registry: CollectorRegistry) -> Any:
        raise NotImplementedError

    def _of(self, values: Sequence[str]) -> Any:
        return self._made.labels(*values) if values else self._made


class Counter(Metric):
    """A number that only grows. Its name ends in ``_total``."""

    kind = "counter"

    def count(self, *values: str, by: float = 1) -> None:
        """Add to it. ``values``: one of each label."""
        if self._made is not None:
            self._of(values).inc(by)

    def _make(self, registry: CollectorRegistry) -> Any:
        from prometheus_client import Counter

        return Counter(self.name, self.text, tuple(self.labels), registry=registry)


class Gauge(Metric):
    """A number that a worker sets. ``mode``: what a service says of the numbers of its living workers."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        text: str,
        labels: Labels | None = None,
        *,
        mode: Literal["livesum", "livemin"] = "livesum",
        services: Sequence[str] = (),
    ) -> None:
        super().__init__(name, text, labels, services=services)
        self._mode = mode

    def set(self, value: float, *values: str) -> None:
        if self._made is not None:
            self._of(values).set(value)

    def _make(self, registry: CollectorRegistry) -> Any:
        from prometheus_client import Gauge

        return Gauge(
            self.name, self.text, tuple(self.labels), registry=registry, multiprocess_mode=self._mode
        )


class Histogram(Metric):
    """How long something took: in seconds, in buckets."""

    kind = "histogram"
    buckets: ClassVar = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

    def observe(self, seconds: float, *values: str) -> None:
        if self._made is not None:
            self._of(values).observe(seconds)

    @contextmanager
    def timed(self, *values: str) -> Iterator[None]:
        """Observe how long the block takes, also if it fails."""
        if self._made is None:
            yield
            return
        begun = perf_counter()
        try:
            yield
        finally:
            self.observe(perf_counter() - begun, *values)

    def _make(self, registry: CollectorRegistry) -> Any:
        from prometheus_client import Histogram

        return Histogram(self.name, self.text, tuple(self.labels), buckets=self.buckets, registry=registry)


class Reading(Metric):
    """A number of the whole fleet, which only the exporter of a scheduler has."""

    kind = "gauge"

    def __init__(self, name: str, text: str, labels: Labels | None = None) -> None:
        super().__init__(name, text, labels, services=["scheduler"])

    def begin(self, registry: CollectorRegistry) -> None:
        """Do nothing: workers do not have it."""

    def family(self, numbers: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
        """The numbers by the values of the labels, for a collector."""
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(self.name, self.text, labels=tuple(self.labels))
        for values, number in numbers.items():
            family.add_metric(values, number)
        return family


def is_on() -> bool:
    """Does this process count?"""
    return _is_on


def switch_on(directory: Path, *services: str) -> None:
    """Count what these services have from now on, in files of ``directory`` that the exporter reads.

    Call it in each worker, after it was forked. A worker that is killed loses nothing that it has counted.
    """
    global _is_on  # noqa: PLW0603 - of this process, as the metrics are
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    from prometheus_client import CollectorRegistry, values

    # prometheus_client has looked at the variable when it was imported, which may have been before.
    values.ValueClass = values.MultiProcessValue()
    registry = CollectorRegistry()
    for metric in METRICS:
        if set(services).intersection(metric.services):
            metric.begin(registry)
    _is_on = True
