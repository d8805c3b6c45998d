"""Send spans to a collector, with OpenTelemetry's exporter and the messages of its protocol.

The exporter's own encoder takes as long for a span as a claim's statement takes to be sent. It is made for
attributes of any kind, and for what Portclaim's spans never have. FastAPI's spans still go through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, SpanFlags, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Encoded
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext

from portclaim.common.trace_spans import Fact, Span

_KNOWN = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class Exporter(OTLPSpanExporter):
    """The exporter of OpenTelemetry, but for how Portclaim's own spans are encoded.

    ``facts``: of the service, the same with every span.
    """

    def __init__(self, url: str, facts: dict[str, str], release: str) -> None:
        super().__init__(url)
        self._resource = Resource(attributes=[_fact(key, value) for key, value in facts.items()])
        self._scope = InstrumentationScope(name="portclaim", version=release)

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        own = [span for span in spans if isinstance(span, Span)]
        others = [span for span in spans if not isinstance(span, Span)]
        request = encode_spans(others) if others else ExportTraceServiceRequest()
        if own:
            request.resource_spans.append(
                ResourceSpans(
                    resource=self._resource,
                    scope_spans=[ScopeSpans(scope=self._scope, spans=map(_encoded, own))],
                )
            )
        sent = self._client.export(request.SerializeToString())
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


def _encoded(span: Span) -> Encoded:
    mine, parent = span.context, span.parent
    return Encoded(
        trace_id=mine.trace_id.to_bytes(16, "big"),
        span_id=mine.span_id.to_bytes(8, "big"),
        parent_span_id=b"" if parent is None else parent.span_id.to_bytes(8, "big"),
        trace_state=mine.trace_state.to_header() if mine.trace_state else "",
        name=span.name,
        kind=span.kind.value + 1,  # type: ignore[arg-type]  # 0 is "unspecified" in the protocol
        start_time_unix_nano=span.start_time,
        end_time_unix_nano=span.end_time or span.start_time,
        attributes=[_fact(key, value) for key, value in span.facts.items()],
        links=[_link(other) for other in span.links],
        status=None if span.error is None else Status(code=Status.STATUS_CODE_ERROR, message=span.error),
        flags=_flags(parent),
    )


def _link(other: SpanContext) -> Encoded.Link:
    return Encoded.Link(
        trace_id=other.trace_id.to_bytes(16, "big"),
        span_id=other.span_id.to_bytes(8, "big"),
        flags=_flags(other),
    )


def _flags(other: SpanContext | None) -> int:
    return _KNOWN if other is None or not other.is_remote else _KNOWN | _REMOTE


@lru_cache(512)
def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _fact(key: str, value: Fact) -> KeyValue:
    if isinstance(value, str):
        return _text(key, value)
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    return KeyValue(key=key, value=AnyValue(int_value=value))
