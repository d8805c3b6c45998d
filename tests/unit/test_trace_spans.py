"""Portclaim's own spans are sent as OpenTelemetry's SDK would send them, and are in traces as its are."""

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, Status, StatusCode

from portclaim.common import tracing
from portclaim.common.trace_export import Exporter
from portclaim.common.trace_spans import Span, Tracer
from tests.support.otlp import collector

FACTS = {"service.name": "portclaim-scheduler", "host.name": "h1"}
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
NOT_RECORDED = "00-2af7651916cd43dd8448eb211c80319c-d7ad6b7169203331-00"


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """The spans that have ended. All traces are made."""
    spans: list[Span] = []
    monkeypatch.setattr(tracing, "_tracer", Tracer(spans.append, share=1))
    return spans


def as_the_sdk_sends(span: Span) -> Sent:
    readable = ReadableSpan(
        span.name,
        span.context,
        span.parent,
        Resource(FACTS),
        span.facts,
        links=[Link(other) for other in span.links],
        kind=span.kind,
        instrumentation_scope=InstrumentationScope("portclaim", "1.2"),
        status=Status() if span.error is None else Status(StatusCode.ERROR, span.error),
        start_time=span.start_time,
        end_time=span.end_time,
    )
    [resource] = encode_spans([readable]).resource_spans
    sent = resource.scope_spans[0].spans[0]
    if not sent.status.code:
        sent.ClearField("status")  # an empty one says as much as none
    return sent


def test_what_is_sent_is_what_the_sdk_would_send(ended: list[Span], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no"), tracing.span("failed", parent=CALLER, portclaim_x=3):
        raise ValueError("no")
    with tracing.statement("claim_alike", [CALLER, OTHER]):
        pass
    with tracing.receiving("claim", {"traceparent": CALLER, "tracestate": "a=1,b=2"}, {"claim_id": "c1"}):
        pass
    with tracing.receiving("claim", {}, {}):
        pass
    sent: list[Any] = []
    exporter = Exporter("http://127.0.0.1:1/v1/traces", FACTS, "1.2")
    monkeypatch.setattr(exporter._client, "export", lambda body: sent.append(body) or _Taken)
    exporter.export(ended)
    request = type(encode_spans([])).FromString(sent[0])
    [resource] = request.resource_spans
    [scope] = resource.scope_spans
    assert {fact.key: fact.value.string_value for fact in resource.resource.attributes} == FACTS
    assert (scope.scope.name, scope.scope.version) == ("portclaim", "1.2")
    assert len(ended) == len(scope.spans) == 5
    for span, encoded in zip(ended, scope.spans, strict=True):
        assert encoded == as_the_sdk_sends(span)


class _Taken:
    success = True


def test_a_collector_gets_them_beside_those_of_the_sdk(ended: list[Span]) -> None:
    with tracing.span("own", parent=CALLER):
        pass
    theirs = ReadableSpan("fastapi", ended[0].context, None, Resource(FACTS), start_time=1, end_time=2)
    with collector() as collecting:
        Exporter(f"{collecting.url}/v1/traces", FACTS, "1.2").export([ended[0], theirs])
        assert {span.name for span in collecting.spans} == {"own", "fastapi"}


def test_the_error_of_a_block_is_its_spans(ended: list[Span]) -> None:
    with pytest.raises(KeyError), tracing.span("failed", parent=CALLER):
        raise KeyError("x" * 1000)
    assert ended[0].facts["error.type"] == "KeyError"
    assert ended[0].error is not None
    assert len(ended[0].error) == 200


def test_spans_within_spans(ended: list[Span]) -> None:
    with tracing.receiving("claim", {}, {}), tracing.sending("compute_agent", "attach"):
        carried = tracing.sent()["traceparent"]
        with tracing.sending("scheduler", "ping"):
            assert tracing.sent()["traceparent"] == carried
    inner, outer = ended
    assert inner.parent == outer.context
    assert carried == f"00-{outer.context.trace_id:032x}-{inner.context.span_id:016x}-01"
    assert tracing.sent() == {}
    assert not trace.get_current_span().get_span_context().is_valid


class TestCallsThatHaveNone:
    def test_questions_begin_no_trace(self, ended: list[Span]) -> None:
        with tracing.receiving("show", {}, {}), tracing.sending("conductor", "report_inventory"):
            assert tracing.current() is None
        assert ended == []

    def test_a_trace_that_its_caller_does_not_record_is_not_begun_anew(self, ended: list[Span]) -> None:
        with tracing.receiving("claim", {"traceparent": NOT_RECORDED}, {}):
            assert tracing.current() is tracing.trace_id() is None
            assert tracing.sent() == {"traceparent": NOT_RECORDED}
            with tracing.span("statement"), tracing.sending("compute_agent", "attach"):
                pass
        assert ended == []

    def test_none_of_a_share_of_none(self, monkeypatch: pytest.MonkeyPatch, ended: list[Span]) -> None:
        monkeypatch.setattr(tracing, "_tracer", Tracer(ended.append, share=0))
        with tracing.receiving("claim", {}, {}):
            assert tracing.current() is None
        assert ended == []

    @pytest.mark.parametrize(
        "parent", ["", "x", 7, None, "00-" + "0" * 32 + "-b7ad6b7169203331-01", CALLER + "-more", CALLER[:-1]]
    )
    def test_what_is_no_trace_is_left_out(self, parent: Any, ended: list[Span]) -> None:
        with tracing.receiving("show", {"traceparent": parent}, {}), tracing.received({"traceparents": [1]}):
            assert tracing.current() is None
        with tracing.received({"traceparents": {"c": parent}}), tracing.continued("x"):
            assert tracing.current() is None
        assert ended == []


class TestStatementsForSeveralCallers:
    def test_each_has_a_span_with_links_to_the_others(self, ended: list[Span]) -> None:
        with tracing.statement("begin_releases", [CALLER, OTHER, CALLER]):
            pass
        first, other = ended
        traces = [CALLER.split("-")[1], OTHER.split("-")[1]]
        assert [f"{span.context.trace_id:032x}" for span in ended] == traces
        assert [f"{span.parent.span_id:016x}" for span in ended if span.parent] == [
            CALLER.split("-")[2],
            OTHER.split("-")[2],
        ]
        assert first.links == [other.parent]
        assert other.links == [first.context]
        assert (first.start_time, first.end_time) == (other.start_time, other.end_time)

    def test_its_error_is_in_all(self, ended: list[Span]) -> None:
        with pytest.raises(ValueError, match="no"), tracing.statement("x", [CALLER, OTHER]):
            raise ValueError("no")
        assert [span.error for span in ended] == ["ValueError: no"] * 2


def test_what_the_api_of_opentelemetry_asks_of_a_span(ended: list[Span]) -> None:
    with tracing.span("one", parent=CALLER):
        span = trace.get_current_span()
        assert span.is_recording()
        span.update_name("other")
        span.set_attributes({"a": 1, "b": [1, 2]})
        span.add_event("unheard")
        span.set_status(Status(StatusCode.ERROR, "gone wrong"))
        span.end()
        span.end()
        assert not span.is_recording()
        assert not isinstance(span, NonRecordingSpan)
    [one] = ended
    assert (one.name, one.facts, one.error) == ("other", {"a": 1, "b": "[1, 2]"}, "gone wrong")


def test_off_nothing_is_made() -> None:
    assert not tracing.is_on()
    with tracing.receiving("claim", {"traceparent": CALLER}, {}), tracing.continued(CALLER):
        assert tracing.current() is None
        assert tracing.sent() == {}
