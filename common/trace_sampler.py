"""Which requests over HTTP begin a trace: a share of those that change something, and no looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased


def sampler(share: float, roots: Sequence[str]) -> Sampler:
    """Samples a share of the traces whose first span has such a name. Other spans follow their parents."""
    return ParentBased(root=_Roots(share, roots))


class _Roots(Sampler):
    def __init__(self, share: float, roots: Sequence[str]) -> None:
        self._share = TraceIdRatioBased(share)
        self._roots = tuple(roots)

    def should_sample(  # noqa: PLR0913, PLR0917 - OpenTelemetry's parameters
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        if not name.startswith(self._roots):
            return SamplingResult(Decision.DROP)
        return self._share.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"{self._share.get_description()} of {', '.join(self._roots)}"
