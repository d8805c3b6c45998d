"""Claims over the bus: single ones, and 32 in one call. What each service takes for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench import clients
from bench.bus import PORTCLAIM
from bench.crew import Work, crew
from bench.sample import Sample, merged
from bench.site import Site
from tests.support.straight_fleet import Size

VF = "nic-vf:1"
BATCH = 32
PROCESSES = 8
"""Of clients, at most. More clients are threads of these."""
_ROOM = 5000  # free VFs for each client: with fewer, only cycles are measured


def single(site: Site, size: Size) -> Iterator[dict[str, Any]]:
    """A claim, its release and the agent's answer, by 1, 8 and 32 clients."""
    yield from by_clients(site, size, "rpc", clients.over_bus, VF)


def many(site: Site, size: Size) -> Iterator[dict[str, Any]]:
    """The same with ``claim_many`` and ``release_many`` of 32."""
    yield from by_clients(site, size, "many", clients.batches_over_bus, VF, BATCH)


def by_clients(
    site: Site,
    size: Size,
    name: str,
    prepare: Callable[..., Work],
    *facts: Any,
    modules: Sequence[str] = PORTCLAIM,
) -> Iterator[dict[str, Any]]:
    """Cycles of these clients, and a claim and its end alone if there is room. ``modules`` serve them."""
    each = BATCH if name == "many" else 1
    url = site.fleet(size)
    running = site.services(url, modules)
    meter = site.meter(url, **running.parts)
    for count in site.options.clients:
        if count * each > _free(size) // 2:
            yield {"name": name, "size": str(size), "clients": count, "left_out": "the fleet is too small"}
            continue
        processes = min(count, PROCESSES)
        with crew(prepare, running.file, *facts, processes=processes, threads=count // processes) as hired:
            written = site.server.wal_bytes()
            cycles = site.rounds(hired, meter)
            written = site.server.wal_bytes() - written
            row = {"name": name, "size": str(size), "clients": count, "each": each, **merged(cycles, each)}
            row["wal_kib"] = round(written / 1024 / row["calls"] / each, 2)
            if count in {1, site.options.reference_clients} and count * _ROOM < _free(size):
                claims, ends = _phases(site, hired, meter, each)
                row["claim"] = merged(claims, each)
                row["release"] = merged(ends, each)
            yield row


def _phases(site: Site, hired: Any, meter: Any, each: int) -> tuple[list[Sample], list[Sample]]:
    """First claims alone, then what ends them: so that each has its own figures."""
    claims, ends = [], []
    seconds = site.options.seconds if each == 1 else min(1.0, site.options.seconds)
    for _ in range(site.options.rounds):
        claims.append(hired.run(seconds, "claim", meter))
        ends.append(hired.run(600.0, "end", meter))
    return claims, ends


def _free(size: Size) -> int:
    """The VFs that a fleet partly in use has to give: all of every second port, half of the others."""
    return size.hosts * size.ports * size.vfs * 3 // 4
