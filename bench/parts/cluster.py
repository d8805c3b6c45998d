"""Claims and echoes over a cluster of three RabbitMQ nodes, beside one node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench import bus, clients
from bench.cluster import classic_queues, quorum_queues
from bench.crew import crew
from bench.parts.rpc import PROCESSES, VF
from bench.sample import merged
from bench.site import Site
from tests.support.straight_fleet import Size

SIZE = Size(62, 4, 64)
CLIENTS = 8
BROKERS = {
    "one node": bus.one_node,
    "three nodes, classic queues": classic_queues,
    "three nodes, quorum queues": quorum_queues,
}

_SHORT = ("one node", "three nodes, quorum queues")


def results(site: Site) -> Iterator[dict[str, Any]]:
    """For each broker the cycles of claim, release and answer, and the echoes."""
    url = site.fleet(SIZE)
    asked = _SHORT if site.options.short else BROKERS
    for broker in asked:
        running = site.services(url, (*bus.PORTCLAIM, "bench.echo"), BROKERS[broker])
        meter = site.meter(url, **running.parts)
        for name, prepare in {"claim": clients.over_bus, "echo": clients.echo}.items():
            with crew(prepare, running.file, VF, processes=PROCESSES) as hired:
                yield {
                    "name": name,
                    "broker": broker,
                    "clients": CLIENTS,
                    **merged(site.rounds(hired, meter)),
                }
    site.forget(SIZE)
