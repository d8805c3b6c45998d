"""How many PF and VF requests does each packing policy serve?

A seeded trace of claims and releases is replayed through the real engine under each policy. The bound is a
clairvoyant that may move VFs between ports for free at any moment.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

from bench.clients import claim_engine, detached, request
from bench.fleet import new_fleet, wanted
from bench.site import Site
from portclaim.common.db.transaction import connect
from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import Claim
from portclaim.services.conductor import lifecycle
from portclaim.services.scheduler.packing import PACK, SPREAD, Packing
from tests.support.straight_fleet import Size

SEED = 1
_LIFETIMES, _SHORT_LIFETIMES = 12.0, 5.0  # of an instance on average, in all
# A port on each host: what is measured is packing alone. Where hosts have several NUMA nodes, the last
# devices near one of them are spared, at the cost of some of it.
SIZE = Size(hosts=80, ports=1, vfs=8)
PORTS = SIZE.hosts * SIZE.ports

RANDOM = Packing("random", *["random()"] * 4)
"""Any device that would do, each as likely as the others."""

Kind = Literal["PF", "VF"]
ALIASES = {"PF": "nic-pf:1", "VF": "nic-vf:1"}


class Event(NamedTuple):
    """At its time, instance ``number`` comes or goes. ``counts``: not while the fleet was filling up."""

    time: float
    number: int
    kind: Kind
    comes: bool
    counts: bool


class Served(NamedTuple):
    """Shares of the requests of each kind that were served, from 0 to 1."""

    PF: float
    VF: float


def trace(load: float, lifetimes: float, seed: int) -> list[Event]:
    """Poisson arrivals and exponential lifetimes (mean 1); PFs and VFs each ask for half of the load.

    ``load``: what is asked for, as a share of all ports. The first three lifetimes do not count: the fleet
    begins empty.
    """
    chance = random.Random(seed)
    numbers = itertools.count()
    rates: dict[Kind, float] = {"PF": PORTS * load / 2, "VF": PORTS * SIZE.vfs * load / 2}
    events = []
    for kind, rate in rates.items():
        time = chance.expovariate(rate)
        while time < lifetimes:
            number, counts = next(numbers), time > 3.0
            events.append(Event(time, number, kind, True, counts))
            events.append(Event(time + chance.expovariate(1.0), number, kind, False, counts))
            time += chance.expovariate(rate)
    return sorted(events)


def bound(events: Sequence[Event]) -> Served:
    """What the clairvoyant serves: a PF while a port is left when all VFs are packed as tightly as can be."""
    held: dict[int, Kind] = {}
    count = {"PF": 0, "VF": 0}
    served = set()
    for event in events:
        if not event.comes:
            if event.number in held:
                count[held.pop(event.number)] -= 1
            continue
        ports_for_vfs = -(-count["VF"] // SIZE.vfs)
        fits = (
            PORTS - count["PF"] - ports_for_vfs >= 1
            if event.kind == "PF"
            else count["VF"] < (PORTS - count["PF"]) * SIZE.vfs
        )
        if fits:
            held[event.number] = event.kind
            count[event.kind] += 1
            served.add(event.number)
    return _shares(events, served)


class Replay:
    """A trace on an empty fleet under one policy, with so many events at once in hand."""

    def __init__(self, cluster_url: str, packing: Packing, clients: int) -> None:
        self._engine = connect(new_fleet(cluster_url, SIZE, used=False), clients)
        self._claims = claim_engine(self._engine, packing)
        self._wanted = {kind: wanted(alias) for kind, alias in ALIASES.items()}
        self._clients = clients

    def run(self, events: Sequence[Event]) -> Served:
        """Every client takes the next event of the trace as soon as it is done with its last one."""
        made: dict[int, Future[Claim | None]] = {event.number: Future() for event in events}
        coming = iter(events)
        one_by_one = threading.Lock()

        def work() -> None:
            while (event := _next(coming, one_by_one)) is not None:
                if event.comes:
                    made[event.number].set_result(self._claim(event.kind))
                elif claim := made[event.number].result():
                    released = detached(self._claims.release(claim.claim_id))
                    lifecycle.step_done(self._engine, released, guest_within=0)

        with ThreadPoolExecutor(self._clients) as pool:
            for client in [pool.submit(work) for _ in range(self._clients)]:
                client.result()
        self._engine.dispose()
        return _shares(events, {number for number, claim in made.items() if claim.result()})

    def _claim(self, kind: Kind) -> Claim | None:
        try:
            return self._claims.claim(request(ALIASES[kind]), self._wanted[kind])
        except ClaimRefused:
            return None


def _next(coming: Iterator[Event], one_by_one: threading.Lock) -> Event | None:
    with one_by_one:
        return next(coming, None)


def _shares(events: Sequence[Event], served: set[int]) -> Served:
    shares = {}
    for kind in ALIASES:
        asked = {event.number for event in events if event.comes and event.counts and event.kind == kind}
        shares[kind] = round(len(asked & served) / len(asked), 4)
    return Served(**shares)


def results(site: Site) -> Iterator[dict[str, Any]]:
    """Shares of the requests that each policy serves, and that the bound serves, at two loads."""
    lifetimes = _SHORT_LIFETIMES if site.options.short else _LIFETIMES
    url = site.server.url
    for load in (0.9,) if site.options.short else (0.7, 0.9):
        events = trace(load, lifetimes, SEED)
        best = bound(events)
        facts = {"load": load, "lifetimes": lifetimes, "events": len(events)}
        yield {"name": "bound", **facts, "served": best._asdict()}
        for packing in (PACK, SPREAD, RANDOM):
            alone = Replay(url, packing, 1).run(events)
            of_bound = round(alone.PF / best.PF, 4)
            yield {"name": packing.name, **facts, "served": alone._asdict(), "of_bound": of_bound}
            if packing is PACK:
                crowd = Replay(url, packing, 32).run(events)
                of_one = round(crowd.PF / alone.PF, 4)
                yield {"name": "pack, 32 clients", **facts, "served": crowd._asdict(), "of_one": of_one}
