"""Every metric, from the lists that the services count by."""

from __future__ import annotations

from portclaim.common.metrics import catalogue, fleet_catalogue
from portclaim.common.metrics.kinds import METRICS, Histogram, Metric, Reading

from .text import cell, table

_INTRODUCTION = """\
# Metrics

With `[metrics] listen` each service answers `/metrics` on a port of its own, for all of its workers
together, in Prometheus' text format and in that of OpenMetrics. [Monitor Portclaim](../how-to/monitor.md)
says how to set it up.

No label has a claim, an instance or a host as its value: so the number of series does not grow with the
fleet. What happened to one claim is in `portclaim describe claim`, in the log and in its trace.

What a killed worker has counted stays. All counters of a service begin anew when the service itself is
started again.
"""

_FLEET = """
## The whole fleet

These come from the database. All schedulers try to take a lock there, and the one that has it reads, every
`[metrics] fleet_interval` seconds, from the counters of ports and hosts. So they exist once however many
schedulers run, and cost the same for a small fleet and a large one but for a row per port. The scheduler
that reads may change: ask for `max without(instance) (...)`.
"""

_SERVICES = {
    "scheduler": "Scheduler",
    "conductor": "Conductor",
    "compute_agent": "Compute agent",
    "api": "HTTP API",
}


def page() -> str:
    assert catalogue.CLAIMS in METRICS and fleet_catalogue.HOSTS in METRICS  # noqa: S101, PT018 - they are known
    own = [metric for metric in METRICS if not isinstance(metric, Reading)]
    parts = [_INTRODUCTION]
    parts.append(f"\n## Every service\n\n{_listed([each for each in own if len(each.services) > 1])}")
    for service, title in _SERVICES.items():
        parts.append(f"\n## {title}\n\n{_listed([each for each in own if each.services == (service,)])}")
    parts.append(f"{_FLEET}\n{_listed([each for each in METRICS if isinstance(each, Reading)])}")
    parts.append(
        "\n## Buckets\n\nAll histograms have the same: "
        f"{', '.join(f'{bound:g}' for bound in Histogram.buckets)} seconds.\n"
    )
    return "".join(parts)


def _listed(metrics: list[Metric]) -> str:
    return table(["Name", "Type", "What it is", "Labels", "Where"], [_row(metric) for metric in metrics])


def _row(metric: Metric) -> list[str]:
    labels = "<br>".join(
        f"`{name}`: {cell(', '.join(values) if isinstance(values, tuple) else values)}"
        for name, values in metric.labels.items()
    )
    return [
        f"`{metric.name}`",
        metric.kind,
        cell(metric.text),
        labels or "none",
        ", ".join(metric.services),
    ]
