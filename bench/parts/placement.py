"""OpenStack Placement, on the same PostgreSQL, with the same fleet: claims and refusals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.crew import crew
from bench.machine import PEERS
from bench.peers import placement_client, placement_fleet, placement_server
from bench.peers.placement_fleet import VF
from bench.sample import merged
from bench.site import Site
from tests.support.straight_fleet import Size

_PATIENCE = 30.0  # seconds that one client may have to wait for one claim
_NOVA_ASKS_FOR = 1000  # candidates: [scheduler] max_placement_results
# Lines for Placement's configuration, and how many candidates a client asks for.
_CONFIGURATIONS = {
    "defaults": (placement_server.DEFAULT, 1),
    "bounded": (placement_server.BOUNDED, 1),
    "bounded, asked as Nova asks": (placement_server.BOUNDED, _NOVA_ASKS_FOR),
}


def results(site: Site, size: Size) -> Iterator[dict[str, Any]]:
    """Claims with the defaults, as recommended for wide trees, and as Nova asks; refusals."""
    if not PEERS.exists():
        yield {"name": "placement", "size": str(size), "left_out": "its environment is not installed"}
        return
    site.stop()
    url = placement_fleet.new_fleet(site.server, size)
    try:
        yield from _claims(site, size, url, "defaults", [1])
        yield from _claims(site, size, url, "bounded", site.options.clients)
        reference = [site.options.reference_clients]
        yield from _claims(site, size, url, "bounded, asked as Nova asks", reference)
        placement_fleet.fill(url, size)
        yield from _refusals(site, size, url)
    finally:
        site.server.drop_database(url)


def _claims(
    site: Site, size: Size, url: str, configuration: str, counts: Sequence[int]
) -> Iterator[dict[str, Any]]:
    lines, limit = _CONFIGURATIONS[configuration]
    with placement_server.placement(url, lines) as running:
        meter = site.meter(url, placement=running.pid)
        took = 0.0
        for count in counts:
            row = {"name": "placement", "configuration": configuration, "size": str(size), "clients": count}
            waits = took * max(1, count / placement_server.WORKERS)
            if waits > _PATIENCE:
                yield {**row, "left_out": f"a claim would take {waits:.0f} s"}
                continue
            facts = (running.port, VF, limit)
            with crew(placement_client.claims, *facts, processes=count, warm_up=1) as hired:
                # A round ends when each client has its answer: a slow one is long enough.
                rounds = site.options.rounds if waits < site.options.seconds else 1
                row |= merged([hired.run(site.options.seconds, meter=meter) for _ in range(rounds)])
                took = row["p50_ms"] / 1000 / max(1, count / placement_server.WORKERS)
                if count == site.options.reference_clients:
                    row["claim"] = merged([hired.run(site.options.seconds, "claim", meter)])
                    row["release"] = merged([hired.run(600.0, "end", meter)])
            yield row


def _refusals(site: Site, size: Size, url: str) -> Iterator[dict[str, Any]]:
    with placement_server.placement(url) as running:
        meter = site.meter(url, placement=running.pid)
        for count in site.options.clients:
            with crew(placement_client.refused, running.port, VF, processes=count, warm_up=1) as hired:
                measured = merged(site.rounds(hired, meter))
            yield {
                "name": "placement refusal",
                "why": "nothing is free",
                "size": str(size),
                "clients": count,
                **measured,
            }
