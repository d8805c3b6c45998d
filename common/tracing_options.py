"""The options of traces."""

from __future__ import annotations

from collections.abc import Sequence

from oslo_config import cfg

GROUP = cfg.OptGroup(
    "tracing", "OpenTelemetry traces: what a claim did in which service, and how long it took"
)
OPTIONS = [
    cfg.StrOpt(
        "endpoint",
        help="Where services send traces, as OTLP over HTTP, for example http://collector:4318. It needs the "
        "packages of portclaim[tracing]. Default: there are no traces.",
    ),
    cfg.FloatOpt(
        "sample",
        default=0.1,
        min=0.0,
        max=1.0,
        help="Share of claims that have a trace. Each trace costs its claim something; those of all claims "
        "are for a test system. A caller's own trace decides for itself.",
    ),
]


def list_opts() -> list[tuple[cfg.OptGroup, Sequence[cfg.Opt]]]:
    """All options, for oslo.config's sample and documentation generators."""
    return [(GROUP, OPTIONS)]
