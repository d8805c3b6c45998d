"""What metrics, traces and lines of the log cost a claim: the same services with and without, in turns.

All kinds of services run at the same time, each with a fleet and a virtual host of its own, and work one
after another for a short time each, again and again. A machine's speed drifts: ratios compare what was
measured within seconds.
"""

from __future__ import annotations

import os
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from unittest.mock import patch

from bench import bus, clients
from bench.cpu import Meter
from bench.crew import Crew, crew
from bench.fleet import new_fleet
from bench.sample import Sample, merged
from bench.site import Site
from tests.support.rabbitmq import free_ports
from tests.support.straight_fleet import Size

SIZE = Size(62, 4, 64)
VF = "nic-vf:1"
CLIENTS = 8
_PROCESSES = 2  # of clients
_WARM_UP = 1.5  # seconds
_TURN = 3.0  # seconds
_SENT_AFTER = {"OTEL_BSP_SCHEDULE_DELAY": "1000"}  # ms: most spans are sent in the turn that makes them
_TURNS = {False: 14, True: 2}  # in the long and in the short form

Options = Mapping[str, Mapping[str, object]]


class _Contestant(NamedTuple):
    crew: Crew
    meter: Meter


def results(site: Site) -> Iterator[dict[str, Any]]:
    """The rate, and what a cycle of claim, release and answer takes of the services' CPU, for each kind."""
    site.stop()
    with _collector() as endpoint, ExitStack() as stack, patch.dict(os.environ, _SENT_AFTER):
        start_broker = bus.shared_node(stack)
        contestants = {
            name: _contestant(stack, site, start_broker, options)
            for name, options in _kinds(endpoint).items()
        }
        for each in contestants.values():
            each.crew.run(_WARM_UP)
        samples = _in_turns(contestants, _TURNS[site.options.short])
    plain = samples["neither"]
    for name, turns in samples.items():
        yield {
            "name": name,
            **merged(turns),
            "cpu_ratio": _median_ratio(turns, plain, _services_cpu),
            "server_cpu_ratio": _median_ratio(turns, plain, _server_cpu),
            "rate_ratio": _median_ratio(turns, plain, lambda sample: sample.rate),
        }


def _in_turns(contestants: Mapping[str, _Contestant], turns: int) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    for number in range(turns):
        order = list(contestants) if number % 2 == 0 else list(reversed(contestants))
        for name in order:
            crew, meter = contestants[name]
            samples[name].append(crew.run(_TURN, meter=meter))
    return samples


def _contestant(stack: ExitStack, site: Site, start_broker: bus.StartBroker, options: Options) -> _Contestant:
    url = new_fleet(site.server.url, SIZE)
    stack.callback(site.server.drop_database, url)
    running = stack.enter_context(bus.services(url, start_broker=start_broker, more=options))
    hired = stack.enter_context(
        crew(clients.over_bus, running.file, VF, processes=_PROCESSES, threads=CLIENTS // _PROCESSES)
    )
    return _Contestant(hired, site.meter(url, **running.parts))


def _kinds(endpoint: str) -> dict[str, Options]:
    return {
        "neither": {},
        "metrics": _metrics(),
        "traces of one claim in ten": {"tracing": {"endpoint": endpoint, "sample": 0.1}},
        "traces of all": {"tracing": {"endpoint": endpoint, "sample": 1.0}},
        "no lines for claims": {"DEFAULT": {"default_log_levels": "portclaim.services=WARNING"}},
    }


def _metrics() -> dict[str, Mapping[str, object]]:
    scheduler, conductor = free_ports(2)
    return {"metrics": {"listen": "127.0.0.1", "scheduler_port": scheduler, "conductor_port": conductor}}


def _services_cpu(sample: Sample) -> float:
    """The seconds of scheduler and conductor for one cycle."""
    return (sample.cpu["scheduler"] + sample.cpu["conductor"]) / len(sample.latencies)


def _server_cpu(sample: Sample) -> float:
    """Those of RabbitMQ and PostgreSQL too."""
    return sum(seconds for part, seconds in sample.cpu.items() if part != "clients") / len(sample.latencies)


def _median_ratio(turns: list[Sample], plain: list[Sample], what: Callable[[Sample], float]) -> float:
    return round(
        statistics.median(what(one) / what(other) for one, other in zip(turns, plain, strict=True)), 3
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
