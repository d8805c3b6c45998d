"""What metrics, traces and lines of the log cost a claim: the same services with and without, in turns.

In each round every kind of services is started anew on the same fleet. Ratios compare kinds within a round.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench import bus, clients
from bench.crew import crew
from bench.sample import Sample, merged
from bench.site import Site
from tests.support.rabbitmq import free_ports
from tests.support.straight_fleet import Size

SIZE = Size(62, 4, 64)
VF = "nic-vf:1"
CLIENTS = 8
_WARM_UP = 1.5  # seconds

Options = Mapping[str, Mapping[str, object]]


def results(site: Site) -> Iterator[dict[str, Any]]:
    """The rate, and what a cycle of claim, release and answer takes of the services' CPU, for each kind."""
    url = site.fleet(SIZE)
    samples: dict[str, list[Sample]] = {}
    with _collector() as endpoint, ExitStack() as stack:
        broker = bus.one_node(stack)  # the same for all: it takes longest to start
        for _ in range(site.options.rounds):
            for name, options in _kinds(endpoint).items():
                start = partial(bus.services, url, start_broker=lambda _stack: broker, more=options)
                samples.setdefault(name, []).append(_cycles(site, url, name, start))
        site.stop()
    site.forget(SIZE)
    plain = samples["neither"]
    for name, rounds in samples.items():
        yield {
            "name": name,
            **merged(rounds),
            "cpu_ratio": _median_ratio(rounds, plain, _services_cpu),
            "rate_ratio": _median_ratio(rounds, plain, lambda sample: sample.rate),
        }


def _kinds(endpoint: str) -> dict[str, Options]:
    scheduler, conductor = free_ports(2)
    metrics = {"metrics": {"listen": "127.0.0.1", "scheduler_port": scheduler, "conductor_port": conductor}}
    traces = {"tracing": {"endpoint": endpoint, "sample": 1.0}}
    return {
        "neither": {},
        "metrics": metrics,
        "traces of one claim in ten": {"tracing": {"endpoint": endpoint, "sample": 0.1}},
        "traces of all": traces,
        "metrics and traces of all": metrics | traces,
        "no lines for claims": {"DEFAULT": {"default_log_levels": "portclaim.services=WARNING"}},
    }


def _cycles(site: Site, url: str, name: str, start: Any) -> Sample:
    running = site.running((name, object()), start)
    meter = site.meter(url, **running.parts)
    with crew(clients.over_bus, running.file, VF, processes=CLIENTS, threads=1) as hired:
        hired.run(_WARM_UP)
        return hired.run(site.options.seconds, meter=meter)


def _services_cpu(sample: Sample) -> float:
    """The seconds of scheduler and conductor for one cycle."""
    return (sample.cpu["scheduler"] + sample.cpu["conductor"]) / len(sample.latencies)


def _median_ratio(rounds: list[Sample], plain: list[Sample], what: Any) -> float:
    return round(
        statistics.median(what(one) / what(other) for one, other in zip(rounds, plain, strict=True)), 3
    )


@contextmanager
def _collector() -> Iterator[str]:
    """A collector that takes all traces and keeps none; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
