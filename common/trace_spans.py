"""Spans of Portclaim itself: what OpenTelemetry's API asks of a span, for a quarter of what its SDK's cost.

The SDK's span is made for any program: it has limits, events, locks and a sampler to ask. A claim and its
release have six spans in the scheduler, and each took 0.14 ms of processor time, with sending it. A span here
is a name, two times and a few facts, and takes 0.03 ms. It is in OpenTelemetry's context like any other, so
FastAPI's spans and these have each other as parents.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, Self

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

Fact = str | int | bool
Facts = dict[str, Fact]

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_LONGEST = 200  # characters of an error


class Span(trace.Span):
    """A span that is recorded, from now to the end of its ``with`` block, in which it is the current one.

    ``end`` gets it when it has ended. ``links``: spans of other traces that it has to do with. It has no
    events but the error that ended its block.
    """

    def __init__(
        self,
        name: str,
        kind: SpanKind,
        parent: SpanContext | None,
        facts: Facts,
        end: Callable[[Any], None],
    ) -> None:
        trace_id = parent.trace_id if parent is not None else random.getrandbits(128) or 1
        state = parent.trace_state if parent is not None else None
        self.name = name
        self.kind = kind
        self.parent = parent
        self.facts = facts
        self.links: Sequence[SpanContext] = ()
        self.error: str | None = None
        self.context = SpanContext(trace_id, random.getrandbits(64) or 1, False, _SAMPLED, state)
        self.start_time = time.time_ns()
        self.end_time: int | None = None
        self._end = end

    def __enter__(self) -> Self:
        self._token = contexts.attach(trace.set_span_in_context(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        contexts.detach(self._token)
        if error is not None:
            self.record_exception(error)
        self.end()

    def end(self, end_time: int | None = None) -> None:
        if self.end_time is None:
            self.end_time = end_time or time.time_ns()
            self._end(self)

    def get_span_context(self) -> SpanContext:
        return self.context

    def is_recording(self) -> bool:
        return self.end_time is None

    def update_name(self, name: str) -> None:
        self.name = name

    def set_attribute(self, key: str, value: Any) -> None:
        self.facts[key] = value if isinstance(value, Fact) else str(value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_status(self, status: Any, description: str | None = None) -> None:
        code = getattr(status, "status_code", status)
        said = getattr(status, "description", description)
        self.error = (said or "") if code is trace.StatusCode.ERROR else None

    def record_exception(self, exception: BaseException, *_more: Any, **_others: Any) -> None:
        self.facts["error.type"] = type(exception).__name__
        self.error = f"{type(exception).__name__}: {exception}"[:_LONGEST]

    def add_event(self, name: str, *_more: Any, **_others: Any) -> None:
        """Keep nothing: see the class."""


class _Attached(AbstractContextManager[None]):
    """In its block, the thread is in the trace of a span that another thread or service has."""

    def __init__(self, parent: SpanContext) -> None:
        self._parent = parent

    def __enter__(self) -> None:
        self._token = contexts.attach(trace.set_span_in_context(NonRecordingSpan(self._parent)))

    def __exit__(self, *_error: object) -> None:
        contexts.detach(self._token)


Kind = Literal["internal", "client", "producer", "consumer"]
_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class Shared(AbstractContextManager[None]):
    """Spans of one and the same block, of one trace or several. None of them becomes the current one.

    The first is linked with the parents of the others, and the others with the first.
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        first, *others = spans
        first.links = [other.parent for other in others if other.parent is not None]
        for other in others:
            other.links = [first.context]
            other.start_time = first.start_time

    def __enter__(self) -> None:
        """They have begun when they were made."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        ended = time.time_ns()
        for span in self._spans:
            if error is not None:
                span.record_exception(error)
            span.end(ended)


class Tracer:
    """Makes spans, which ``end`` gets. ``share``: of the traces that begin here."""

    def __init__(self, end: Callable[[Any], None], share: float) -> None:
        self._end = end
        self._share = share

    def span(self, name: str, kind: Kind, parent: SpanContext, facts: Facts) -> Span:
        """A span of the trace of its parent."""
        return Span(name, _KINDS[kind], parent, facts, self._end)

    def first(self, name: str, kind: Kind, facts: Facts) -> Span | None:
        """The first span of a new trace. None: this one is not in the share of those that are made."""
        if random.random() >= self._share:  # noqa: S311 - no secret
            return None
        return Span(name, _KINDS[kind], None, facts, self._end)

    def shared(self, name: str, parents: Iterable[SpanContext], facts: Facts) -> Shared:
        """What is done once for several callers: a span in the trace of each, linked with the others'."""
        return Shared([Span(name, SpanKind.CLIENT, parent, dict(facts), self._end) for parent in parents])

    @staticmethod
    def attached(parent: SpanContext) -> AbstractContextManager[None]:
        """In this block, the thread is in the trace of ``parent``."""
        return _Attached(parent)

    @staticmethod
    def current() -> SpanContext | None:
        """The span that the thread is in, recorded or not. None: it is in no trace."""
        found = trace.get_current_span().get_span_context()
        return found if found.is_valid else None

    @staticmethod
    def parsed(traceparent: str, tracestate: object = None) -> SpanContext | None:
        """The span that W3C's headers name. None: they name none."""
        found = _TRACEPARENT.fullmatch(traceparent)
        if found is None:
            return None
        state = TraceState.from_header([tracestate]) if isinstance(tracestate, str) and tracestate else None
        flags = TraceFlags(int(found[3], 16))
        named = SpanContext(int(found[1], 16), int(found[2], 16), True, flags, state)
        return named if named.is_valid else None
