"""How much a "no" costs, in a fleet that is partly in use and in one that is full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from bench import clients
from bench.crew import Crew, crew
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


def in_process(size: Size) -> dict[str, tuple[str, dict[str, object]]]:
    """Alias and other fields of requests that one client makes by direct calls of the engine."""
    on_a_host = size.ports * size.vfs
    whole = f"nic-pf:{size.ports // 2 + 1}"
    names = [f"host-{number + 1}" for number in range(size.hosts)]
    return {
        "all VFs of a host": (f"nic-vf:{on_a_host}", {}),
        "more VFs than a host has free": (f"nic-vf:{on_a_host * 3 // 4 + 1}", {}),
        "more whole ports than a host has free, anywhere": (whole, {}),
        "the same, on 3 named hosts": (whole, {"hosts": names[:3]}),
        "the same, on nine tenths of the hosts by name": (whole, {"hosts": names[: size.hosts * 9 // 10]}),
        "the same, avoiding a tenth of the hosts": (whole, {"avoid_hosts": names[: size.hosts // 10]}),
    }


def results(site: Site, size: Size) -> Iterator[dict[str, Any]]:
    """Refusals in process and over the bus. Fills the fleet: what comes after finds it full."""
    url = site.fleet(size)
    site.stop()
    for name, (alias, facts) in in_process(size).items():
        with crew(partial(clients.refused_in_process, **facts), url, alias, 1) as hired:
            yield _one_client(site, size, "refusal in process", name, alias, hired)
    alias = f"nic-pf:{size.ports // 2 + 1}"
    with crew(clients.explained_in_process, url, alias) as hired:
        yield _one_client(site, size, "explanation in process", "why there are too few ports", alias, hired)
    for name, alias in partly(size).items():
        yield from _refused(site, size, name, alias, _SOME)
    fill(url)
    yield from _refused(site, size, "nothing is free", FULL, site.options.clients)
    site.stop()
    with crew(clients.refused_in_process, url, FULL, 1) as hired:
        yield _one_client(site, size, "refusal in process", "nothing is free", FULL, hired)


def _one_client(site: Site, size: Size, name: str, why: str, alias: str, hired: Crew) -> dict[str, Any]:
    measured = merged(site.rounds(hired, site.meter(site.fleet(size))))
    return {"name": name, "why": why, "alias": alias, "size": str(size), "clients": 1, **measured}


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
