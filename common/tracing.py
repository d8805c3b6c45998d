"""OpenTelemetry traces: one follows a claim from the request through the services to the agent's answer.

FastAPI makes the spans of requests. This module makes those of calls and of the work within a service, and
carries the context over the bus. Steps of several claims travel in one message, a statement may serve several
callers, and a step that is sent again comes from the outbox. Off, which is the default, nothing of
OpenTelemetry is imported.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from uuid import UUID

from oslo_config import cfg

from portclaim.common import tracing_options
from portclaim.common.errors import InvalidConfiguration
from portclaim.common.option_groups import register

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from portclaim.common.trace_spans import Kind, Tracer

TraceParent = str
"""The context of a span in the form of the W3C: ``00-<trace>-<span>-<flags>``."""

_PARENTS = "traceparents"
_PARENT = "traceparent"
_STATE = "tracestate"
_CHANGES = frozenset(
    ("claim", "claim_many", "release", "release_many", "attach", "move", "complete_move", "revert_move")
)
"""The methods that a trace may begin with. Reports and questions have none of their own."""
_REQUESTS = ("PUT", "POST", "DELETE")
_NEVER = frozenset(("ping", "about"))
"""The methods that tell nothing in a trace."""
_NOTHING: AbstractContextManager[None] = nullcontext()

_tracer: Tracer | None = None
_received: ContextVar[Mapping[str, TraceParent]] = ContextVar("portclaim_traces", default={})  # noqa: B039


def is_on() -> bool:
    """Does this process make spans?"""
    return _tracer is not None


def check(conf: cfg.ConfigOpts) -> None:
    """Raise :class:`InvalidConfiguration` if traces are wanted and cannot be made."""
    register(conf, tracing_options.OPTIONS, tracing_options.GROUP)
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
    global _tracer  # noqa: PLW0603 - of this process
    if conf.tracing.endpoint is None:
        return
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from portclaim.common.trace_export import Exporter
    from portclaim.common.trace_sampler import sampler
    from portclaim.common.trace_spans import Tracer

    facts = {
        "service.name": f"portclaim-{service.replace('_', '-')}",
        "service.version": version("portclaim"),
        "service.instance.id": f"{conf.host}-{os.getpid()}",
        "host.name": conf.host,
    }
    share = conf.tracing.sample
    exporter = Exporter(f"{conf.tracing.endpoint.rstrip('/')}/v1/traces", facts, version("portclaim"))
    sending = BatchSpanProcessor(exporter)
    provider = TracerProvider(resource=Resource.create(facts), sampler=sampler(share, _REQUESTS))
    provider.add_span_processor(sending)
    trace.set_tracer_provider(provider)  # FastAPI takes it
    _tracer = Tracer(sending.on_end, share)


def end() -> None:
    """Send the spans that are left."""
    if _tracer is not None:
        from opentelemetry import trace

        provider: Any = trace.get_tracer_provider()
        provider.shutdown()


def span(
    name: str, kind: Kind = "internal", parent: TraceParent | None = None, **facts: str | int | None
) -> AbstractContextManager[object]:
    """A span for the block, of the trace of ``parent``, or of the one that the thread is in.

    Without either there is none. ``facts``: an underscore in a name is a dot, and two are an underscore.
    """
    if _tracer is None:
        return _NOTHING
    found = _tracer.current() if parent is None else _tracer.parsed(parent)
    if found is None or not found.trace_flags.sampled:
        return _NOTHING
    known = {_dotted(key): fact for key, fact in facts.items() if fact is not None}
    return _tracer.span(name, kind, found, known)


def sending(topic: str, method: str) -> AbstractContextManager[object]:
    """The span of a message to a service, until it is sent or answered. There is one only within a trace."""
    if _tracer is None or method in _NEVER:
        return _NOTHING
    found = _tracer.current()
    if found is None or not found.trace_flags.sampled:
        return _NOTHING
    facts = {"messaging.system": "rabbitmq", "messaging.destination.name": topic, "rpc.method": method}
    return _tracer.span(f"{topic}.{method}", "producer", found, facts)  # type: ignore[arg-type]


def receiving(
    method: str, context: Mapping[str, Any], facts: Mapping[str, str]
) -> AbstractContextManager[object]:
    """The span of the work on a message, of the trace of its sender, or the first of a new one."""
    if _tracer is None or method in _NEVER:
        return _NOTHING
    parent = context.get(_PARENT)
    found = _tracer.parsed(parent, context.get(_STATE)) if isinstance(parent, str) else None
    name = f"{method} receive"
    known: dict[str, Any] = {"messaging.system": "rabbitmq", "rpc.method": method}
    known.update((f"portclaim.{key}", fact) for key, fact in facts.items())
    if found is None:
        first = _tracer.first(name, "consumer", known) if method in _CHANGES else None
        return first or _NOTHING
    if found.trace_flags.sampled:
        return _tracer.span(name, "consumer", found, known)
    return continued(parent)  # so that nothing that it calls begins a trace either


def statement(name: str, parents: Iterable[TraceParent]) -> AbstractContextManager[object]:
    """The span of a statement in the database, in the trace of each caller that it serves."""
    if _tracer is None:
        return _NOTHING
    found = [each for parent in dict.fromkeys(parents) if (each := _tracer.parsed(parent)) is not None]
    if not found:
        return _NOTHING
    return _tracer.shared(name, found, {"db.system.name": "postgresql", "db.operation.name": name})


def continued(parent: TraceParent | None) -> AbstractContextManager[None]:
    """In this block, the thread is in the trace of ``parent``."""
    if _tracer is None or parent is None or (found := _tracer.parsed(parent)) is None:
        return _NOTHING
    return _tracer.attached(found)


def current() -> TraceParent | None:
    """The span that the thread is in. None: there is none that is recorded."""
    found = None if _tracer is None else _tracer.current()
    return _as_text(found) if found is not None and found.trace_flags.sampled else None


def trace_id() -> str | None:
    """The id of the trace that the thread is in, for the log."""
    found = None if _tracer is None else _tracer.current()
    return f"{found.trace_id:032x}" if found is not None and found.trace_flags.sampled else None


def sent() -> dict[str, str]:
    """What goes with a message that is sent in this thread: its trace, recorded or not."""
    found = None if _tracer is None else _tracer.current()
    if found is None:
        return {}
    state = found.trace_state.to_header()
    return {_PARENT: _as_text(found)} | ({_STATE: state} if state else {})


def of_claims(
    claim_ids: Collection[str], parents: Mapping[str, TraceParent] | None = None
) -> Mapping[str, TraceParent] | None:
    """The trace of each of these claims, for the database, which writes them to their steps. None: none has
    one.

    ``parents``: those of claims of other threads.
    """
    mine = current()
    found = {**(dict.fromkeys(claim_ids, mine) if mine else {}), **(parents or {})}
    return found or None


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
    token = _received.set({claim_id: each for claim_id, each in parents.items() if isinstance(each, str)})
    try:
        yield
    finally:
        _received.reset(token)


def of_claim(claim_id: UUID) -> TraceParent | None:
    """The trace that a claim of the call in hand belongs to."""
    return current() or _received.get().get(str(claim_id))


def _dotted(name: str) -> str:
    return "_".join(part.replace("_", ".") for part in name.split("__"))


def _as_text(span: SpanContext) -> TraceParent:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
