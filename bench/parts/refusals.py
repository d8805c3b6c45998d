"""How much a "no" costs, in a fleet that is partly in use and in one that is full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench import clients
from bench.crew import crew
from bench.full_fleet import fill
from bench.parts.rpc import PROCESSES
from bench.sample import merged
from bench.site import Site
from tests.support.straight_fleet import Size

FULL = "nic-vf:1"
"""Of a fleet in which nothing is free."""
_SOME = (8,)


def partly(size: Size) -> dict[str, str]:
    """What a fleet partly in use cannot serve, by a name for it: every second port of a host is whole."""
    return {
        "more whole ports than a host has free": f"nic-pf:{size.ports // 2 + 1}",
        "VFs and PFs that are there one by one": f"nic-pf:{size.ports // 2},nic-vf:{size.ports * size.vfs}",
    }


def results(site: Site, size: Size) -> Iterator[dict[str, Any]]:
    """Refusals over the bus. Fills the fleet: what comes after finds it full."""
    url = site.fleet(size)
    for name, alias in partly(size).items():
        yield from _refused(site, size, name, alias, _SOME)
    fill(url)
    yield from _refused(site, size, "nothing is free", FULL, site.options.clients)


def _refused(
    site: Site, size: Size, name: str, alias: str, counts: Sequence[int]
) -> Iterator[dict[str, Any]]:
    url = site.fleet(size)
    running = site.services(url)
    meter = site.meter(url, **running.parts)
    for count in counts:
        processes = min(count, PROCESSES)
        facts = (running.file, alias)
        with crew(clients.refused_over_bus, *facts, processes=processes, threads=count // processes) as hired:
            measured = merged(site.rounds(hired, meter))
        yield {
            "name": "refusal",
            "why": name,
            "alias": alias,
            "size": str(size),
            "clients": count,
            **measured,
        }
