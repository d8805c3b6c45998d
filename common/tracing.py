"""OpenTelemetry traces: one follows a claim from the request through the services to the agent's answer.

FastAPI makes the spans of requests, and oslo.messaging those of calls, with which it carries the context.
This module adds spans within a service, and what a step needs: steps of several claims travel in one message,
and a step that is sent again comes from the outbox. Off, which is the default, nothing of OpenTelemetry's SDK
is imported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from oslo_config import cfg

from portclaim.common import tracing_options
from portclaim.common.errors import InvalidConfiguration

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

Kind = Literal["internal", "server", "client", "producer", "consumer"]
TraceParent = str
"""The context of a span in the form of the W3C: ``00-<trace>-<span>-<flags>``."""

_PARENTS = "traceparents"
_HEADER = "traceparent"
_CHANGES = ("claim", "release", "attach", "move", "complete_move", "revert_move")
_ROOTS = (
    *("PUT", "POST", "DELETE"),
    *(f"scheduler.{method}" for method in _CHANGES),
    *("claim receive", "claim_many receive", "release receive", "release_many receive", "move receive"),
)
"""How the names of spans begin that may be the first of a trace. Reports and questions have none."""

_tracer: Tracer | None = None
_received: ContextVar[Mapping[str, TraceParent]] = ContextVar("portclaim_traces", default={})  # noqa: B039


def is_on() -> bool:
    """Does this process make spans?"""
    return _tracer is not None


def check(conf: cfg.ConfigOpts) -> None:
    """Raise :class:`InvalidConfiguration` if traces are wanted and cannot be made."""
    conf.register_opts(tracing_options.OPTIONS, tracing_options.GROUP)
    try:
        endpoint, _ = conf.tracing.endpoint, conf.tracing.sample
    except (cfg.Error, ValueError) as error:
        raise InvalidConfiguration(str(error)) from error
    if endpoint is not None:
        try:
            import opentelemetry.exporter.otlp.proto.http
            import opentelemetry.sdk  # noqa: F401 - only whether they are there
        except ImportError as error:
            raise InvalidConfiguration(
                f"[tracing] endpoint is set, but a package is missing ({error}): "
                "pip install portclaim[tracing]"
            ) from error


def begin(conf: cfg.ConfigOpts, service: str) -> None:
    """Make spans from now on, if ``[tracing] endpoint`` is set. Call it in each worker, after the fork."""
    if conf.tracing.endpoint is None:
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from portclaim.common.trace_sampler import sampler

    facts = {
        "service.name": f"portclaim-{service.replace('_', '-')}",
        "service.version": version("portclaim"),
        "service.instance.id": f"{conf.host}-{os.getpid()}",
        "host.name": conf.host,
    }
    provider = TracerProvider(resource=Resource.create(facts), sampler=sampler(conf.tracing.sample, _ROOTS))
    exporter = OTLPSpanExporter(f"{conf.tracing.endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    _use(trace.get_tracer("portclaim", version("portclaim")), conf)


def end() -> None:
    """Send the spans that are left."""
    if _tracer is not None:
        from opentelemetry import trace

        provider: Any = trace.get_tracer_provider()
        provider.shutdown()


def _use(tracer: Tracer, conf: cfg.ConfigOpts) -> None:
    """Have oslo.messaging make spans too. It takes the provider that is there."""
    global _tracer  # noqa: PLW0603 - of this process
    from oslo_messaging._tracing.client import oslo_messaging_tracing

    conf.register_opts(oslo_messaging_tracing, group="oslo_messaging_tracing")
    conf.set_override("tracing_enabled", True, group="oslo_messaging_tracing")
    _tracer = tracer


@contextmanager
def span(
    name: str, kind: Kind = "internal", parent: TraceParent | None = None, **attributes: str | int | None
) -> Iterator[None]:
    """A span for the block, of the trace of ``parent``, or of the one that the thread is in.

    Without either there is none, but for a server's. ``attributes``: an underscore in a name is a dot, and
    two are an underscore.
    """
    if _tracer is None or (parent is None and kind != "server" and current() is None):
        yield
        return
    from opentelemetry.trace import SpanKind

    known = {_dotted(key): fact for key, fact in attributes.items() if fact is not None}
    with _tracer.start_as_current_span(
        name, context=_context(parent), kind=SpanKind[kind.upper()], attributes=known
    ):
        yield


@contextmanager
def continued(parent: TraceParent | None) -> Iterator[None]:
    """In this block, the thread is in the trace of ``parent``."""
    if _tracer is None or parent is None:
        yield
        return
    from opentelemetry import context

    token = context.attach(_context(parent) or context.Context())
    try:
        yield
    finally:
        context.detach(token)


def current() -> TraceParent | None:
    """The span that the thread is in. None: there is none that is recorded."""
    if _tracer is None:
        return None
    from opentelemetry import trace

    found = trace.get_current_span().get_span_context()
    if not found.is_valid or not found.trace_flags.sampled:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def trace_id() -> str | None:
    """The id of the trace that the thread is in, for the log."""
    found = current()
    return None if found is None else found.split("-")[1]


def for_database(claim_ids: Iterable[str], parents: Mapping[str, TraceParent] | None = None) -> str | None:
    """What the database writes to the steps of these claims, as JSON. None: nothing.

    ``parents``: those of claims of other threads.
    """
    mine = current()
    found = {claim_id: mine for claim_id in claim_ids if mine} | dict(parents or {})
    return json.dumps(found) if found else None


def with_parents(context: dict[str, Any], parents: Mapping[UUID, TraceParent | None]) -> dict[str, Any]:
    """The context of a call that is about several claims, with the trace of each."""
    known = {str(claim_id): parent for claim_id, parent in parents.items() if parent is not None}
    return {**context, _PARENTS: known} if known else context


@contextmanager
def received(context: Mapping[str, Any]) -> Iterator[None]:
    """In this block, :func:`of_claim` knows the traces that a call came with."""
    parents = context.get(_PARENTS)
    if _tracer is None or not isinstance(parents, dict):
        yield
        return
    token = _received.set(parents)
    try:
        yield
    finally:
        _received.reset(token)


def of_claim(claim_id: UUID) -> TraceParent | None:
    """The trace that a claim of the call in hand belongs to."""
    return current() or _received.get().get(str(claim_id))


def _dotted(name: str) -> str:
    return "_".join(part.replace("_", ".") for part in name.split("__"))


def _context(parent: TraceParent | None) -> Any:
    """OpenTelemetry's context of a parent; None: that of the thread."""
    if parent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({_HEADER: parent})
