"""What the bus itself costs: an oslo.messaging echo, one with as many messages as a cycle, and bare kombu."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench import bus, clients
from bench.crew import crew
from bench.parts.rpc import PROCESSES, VF
from bench.peers import kombu_echo
from bench.sample import merged
from bench.site import Site

CONTESTANTS = {
    "oslo.messaging echo": clients.echo,
    "oslo.messaging echo of the same messages": clients.echo_of_same_messages,
    "kombu echo": kombu_echo.calls,
}


def results(site: Site) -> Iterator[dict[str, Any]]:
    """Calls per second, by 1, 8 and 32 clients. For the second contestant, a call is all of a cycle's."""
    running = site.services(site.server.url, bus.ECHO)
    meter = site.meter(site.server.url, **running.parts)
    for name, prepare in CONTESTANTS.items():
        for count in site.options.clients:
            # kombu's connections are not for several threads: its clients are processes.
            processes = count if prepare is kombu_echo.calls else min(count, PROCESSES)
            with crew(prepare, running.file, VF, processes=processes, threads=count // processes) as hired:
                yield {"name": name, "clients": count, **merged(site.rounds(hired, meter))}
