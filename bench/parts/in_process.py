"""Claims by direct calls of the engine, beside what PostgreSQL does when nobody has to choose a device.

In every round each contestant works for a few seconds, one after the other. A ratio is the median over the
rounds of what one did by what the other did.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, NamedTuple

from bench import bus, clients
from bench.cpu import difference
from bench.crew import crew
from bench.fleet import new_fleet, wanted
from bench.limit import SCRIPTS, SEPARATELY, pgbench
from bench.parts.rpc import BATCH
from bench.round_trips import counted
from bench.sample import Sample, merged, ratio
from bench.site import Site
from portclaim.common.db.transaction import connect
from portclaim.services.conductor import lifecycle
from tests.support.straight_fleet import Size

SMALL, MANY_VFS = Size(62, 4, 64), Size(32, 4, 256)
VF, PF = "nic-vf:1", "nic-pf:1"

Run = Callable[[float], Sample]


class Pair(NamedTuple):
    """What a contestant reaches of its peer's rate, and what it should reach. ``each``: claims in a call."""

    name: str
    contestant: str
    peer: str
    goal: float | None = None
    each: int = 1


PAIRS = [
    Pair("1 client", "engine, 1 client", "limit, 1 client"),
    Pair("8 clients", "engine, 8 clients", "limit, 8 clients", goal=0.7),
    Pair("32 clients", "engine, 32 clients", "limit, 32 clients"),
    Pair("8 clients, 32 claims at once", "engine, 32 at once", "limit, 8 clients", goal=1.5, each=BATCH),
    Pair("8 clients, by a statement per table", "engine, 8 clients", "statement per table"),
    Pair("a PF with 64 VFs, 8 clients", "engine, PF with 64 VFs", "limit, PF with 64 VFs"),
    Pair("a PF with 256 VFs, 8 clients", "engine, PF with 256 VFs", "limit, PF with 256 VFs", goal=0.7),
]


def results(site: Site) -> Iterator[dict[str, Any]]:
    """A result for each pair that the numbers of clients leave, and the round trips of a claim."""
    asked = {f"{count} client{'s' * (count > 1)}" for count in site.options.clients}
    pairs = [pair for pair in PAIRS if any(each in pair.name for each in asked)]
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.peer, pair.contestant)))
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    with ExitStack() as stack:
        contestants = Contestants(site, stack)
        runs = {name: contestants[name] for name in names}
        for _ in range(site.options.rounds):
            for name, run in runs.items():
                samples[name].append(run(site.options.seconds))
    for size in (SMALL, MANY_VFS):
        site.forget(size)
    for pair in pairs:
        ours, theirs = samples[pair.contestant], samples[pair.peer]
        yield {
            "name": pair.name,
            "ratio": round(ratio(list(zip(ours, theirs, strict=True))) * pair.each, 3),
            "goal": pair.goal,
            "portclaim": merged(ours, pair.each),
            "peer": {"name": pair.peer, **merged(theirs)},
        }
    yield round_trips(site.server.url)


class Contestants:
    """All there are, by name; what they need is set up when one is first asked for."""

    def __init__(self, site: Site, stack: ExitStack) -> None:
        self._site = site
        self._stack = stack
        self._makers: dict[str, Callable[[], Run]] = {
            "limit, 1 client": lambda: self._limit(SMALL, SCRIPTS[VF], 1),
            "limit, 8 clients": lambda: self._limit(SMALL, SCRIPTS[VF], 8),
            "limit, 32 clients": lambda: self._limit(SMALL, SCRIPTS[VF], 32),
            "statement per table": lambda: self._limit(SMALL, SEPARATELY, 8),
            "limit, PF with 64 VFs": lambda: self._limit(SMALL, SCRIPTS[PF], 8),
            "limit, PF with 256 VFs": lambda: self._limit(MANY_VFS, SCRIPTS[PF], 8),
            "engine, 1 client": lambda: self._engine(SMALL, VF, 1, processes=1),
            "engine, 8 clients": lambda: self._engine(SMALL, VF, 8),
            "engine, 32 clients": lambda: self._engine(SMALL, VF, 32),
            "engine, 32 at once": self._batches,
            "engine, PF with 64 VFs": lambda: self._engine(SMALL, PF, 8),
            "engine, PF with 256 VFs": lambda: self._engine(MANY_VFS, PF, 8),
        }

    def __getitem__(self, name: str) -> Run:
        return self._makers[name]()

    def _limit(self, size: Size, script: str, count: int) -> Run:
        url = self._site.fleet(size)
        meter = self._site.meter(url)

        def run(seconds: float) -> Sample:
            before = meter.read()
            sample = pgbench(url, size, script, count, seconds)
            return sample._replace(cpu=difference(before, meter.read()))

        return run

    def _batches(self) -> Run:
        url = self._site.fleet(SMALL)
        threads = 8 // bus.WORKERS
        facts = (clients.batches_in_process, url, VF, threads, BATCH)
        hired = crew(*facts, processes=bus.WORKERS, threads=threads)
        return functools.partial(self._stack.enter_context(hired).run, meter=self._site.meter(url))

    def _engine(self, size: Size, alias: str, count: int, processes: int = bus.WORKERS) -> Run:
        """So many clients, as the threads of so many workers."""
        threads = count // processes
        url = self._site.fleet(size)
        hired = crew(clients.in_process, url, alias, threads, processes=processes, threads=threads)
        return functools.partial(self._stack.enter_context(hired).run, meter=self._site.meter(url))


def round_trips(cluster_url: str) -> dict[str, Any]:
    """How often PostgreSQL answers in a claim, in a release, and in an agent's answer."""
    requirements, times = wanted(VF), 20
    with counted(new_fleet(cluster_url, Size(4, 4, 8))) as counter:
        engine = connect(counter.url, 1)
        claims = clients.claim_engine(engine)

        def cycle() -> list[int]:
            seen = [counter.trips]
            made = claims.claim(clients.request(VF), requirements)
            seen.append(counter.trips)
            releasing = claims.release(made.claim_id)
            seen.append(counter.trips)
            lifecycle.step_done(engine, clients.detached(releasing), guest_within=0)
            seen.append(counter.trips)
            return [after - before for before, after in pairwise(seen)]

        cycle()  # connects and prepares
        counts = [sum(each) / times for each in zip(*(cycle() for _ in range(times)), strict=True)]
        engine.dispose()
    return {"name": "round trips", **dict(zip(("claim", "release", "answer"), counts, strict=True))}
