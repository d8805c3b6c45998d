"""A collector of traces: it takes OTLP over HTTP as real ones do, and keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """A span; its ids are hexadecimal, and `parent` is empty for the first of a trace."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, str] = field(compare=False, default_factory=dict)
    begun: int = field(compare=False, default=0)  # nanoseconds
    ended: int = field(compare=False, default=0)


@dataclass
class Collector:
    """What has arrived so far."""

    url: str
    spans: list[Span]

    def trace(self, trace_id: str) -> list[Span]:
        return [span for span in list(self.spans) if span.trace == trace_id]

    def path(self, span: Span) -> list[str]:
        """The service and the name of each span from the first of the trace to this one."""
        by_id = {each.id: each for each in list(self.spans)}
        found: list[str] = []
        at: Span | None = span
        while at is not None:
            found.insert(0, f"{at.service}: {at.name}")
            at = by_id.get(at.parent)
        return found

    def as_text(self, trace_id: str) -> str:
        """A trace as a tree: when each span began and how long it took, in milliseconds."""
        spans = sorted(self.trace(trace_id), key=lambda span: span.begun)
        ids = {span.id for span in spans}
        lines: list[str] = []

        def write(span: Span, depth: int) -> None:
            at, took = (span.begun - spans[0].begun) / 1e6, (span.ended - span.begun) / 1e6
            what = f"{'  ' * depth}{span.service}: {span.name}"
            lines.append(f"{at:7.1f} {took:7.1f}  {what}")
            for child in spans:
                if child.parent == span.id:
                    write(child, depth + 1)

        for span in spans:
            if span.parent not in ids:
                write(span, 0)
        return "\n".join([f"{'begun':>7} {'took':>7}", *lines])


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a free port."""
    spans: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Collector(f"http://127.0.0.1:{server.server_address[1]}", spans)
    finally:
        server.shutdown()
        server.server_close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for of_service in request.resource_spans:
        facts = {fact.key: fact.value.string_value for fact in of_service.resource.attributes}
        for scope in of_service.scope_spans:
            for span in scope.spans:
                yield Span(
                    facts["service.name"].removeprefix("portclaim-"),
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    {fact.key: fact.value.string_value for fact in span.attributes},
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                )
