"""``python -m bench.claims``: how near to what PostgreSQL and the bus can do is a claim?

In every round each contestant works for a few seconds, one after the other, on the same server. A ratio is
the median over the rounds of what one did by what the other did. Prints one JSON object per result.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from bench import bus, clients, plot, soak
from bench.crew import Do, crew
from bench.fleet import new_fleet, wanted
from bench.limit import SCRIPTS, SEPARATELY, pgbench
from bench.round_trips import counted
from bench.sample import Sample, merged, ratio
from portclaim.cli.embedded import postgresql
from portclaim.common.db.transaction import connect
from portclaim.services.conductor import lifecycle
from tests.support.straight_fleet import Size

RESULTS = Path(__file__).parent / "results"

SMALL, LARGE, MANY_VFS = Size(62, 4, 64), Size(3847, 4, 64), Size(32, 4, 256)
VF, PF = "nic-vf:1", "nic-pf:1"

Run = Callable[[float], Sample]


class Pair(NamedTuple):
    """What a contestant reaches of its peer's rate, and what it should reach."""

    name: str
    contestant: str
    peer: str
    goal: float | None = None
    calls: int = 1  # that one cycle of the contestant makes, where calls are compared


PAIRS = [
    Pair("in process, 1 client", "engine, 1 client", "limit, 1 client"),
    Pair("in process, 8 clients", "engine, 8 clients", "limit, 8 clients", goal=0.7),
    Pair("in process, 32 clients", "engine, 32 clients", "limit, 32 clients"),
    Pair("in process, 8 clients, by a statement per table", "engine, 8 clients", "statement per table"),
    Pair("1,000,000 devices by 16,000", "engine, large fleet", "engine, 8 clients", goal=0.8),
    Pair("a PF with 64 VFs, 8 clients", "engine, PF with 64 VFs", "limit, PF with 64 VFs"),
    Pair("a PF with 256 VFs, 8 clients", "engine, PF with 256 VFs", "limit, PF with 256 VFs", goal=0.7),
    Pair("through RPC, 8 clients, by echo", "RPC", "echo", goal=0.7, calls=3),
    Pair("through RPC, 8 clients, by an echo of the same messages", "RPC", "echo of the same messages"),
]


class Contestants:
    """All there are, by name; what they need is set up when one is first asked for."""

    def __init__(self, cluster_url: str, stack: ExitStack) -> None:
        self._stack = stack
        self._fleet = functools.cache(lambda size: new_fleet(cluster_url, size))
        self._bus = functools.cache(lambda: stack.enter_context(bus.services(self._fleet(SMALL))))
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
            "engine, large fleet": lambda: self._engine(LARGE, VF, 8),
            "engine, PF with 64 VFs": lambda: self._engine(SMALL, PF, 8),
            "engine, PF with 256 VFs": lambda: self._engine(MANY_VFS, PF, 8),
            "RPC": lambda: self._over_bus(clients.over_bus),
            "echo": lambda: self._over_bus(clients.echo),
            "echo of the same messages": lambda: self._over_bus(clients.echo_of_same_messages),
        }

    def __getitem__(self, name: str) -> Run:
        return self._makers[name]()

    def _limit(self, size: Size, script: str, count: int) -> Run:
        return functools.partial(pgbench, self._fleet(size), size, script, count)

    def _engine(self, size: Size, alias: str, count: int, processes: int = bus.WORKERS) -> Run:
        """So many clients, as the threads of so many workers."""
        threads = count // processes
        facts = (self._fleet(size), alias, threads)
        hired = crew(clients.in_process, *facts, processes=processes, threads=threads)
        return self._stack.enter_context(hired).run

    def _over_bus(self, client: Callable[..., Do]) -> Run:
        return self._stack.enter_context(crew(client, self._bus(), VF, processes=8)).run


def main() -> None:
    """Measure, print, and write ``results/claims.json`` and ``results/claims.svg``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each contestant in each round")
    parser.add_argument("--only", default="", help="what has this in its name")
    parser.add_argument("--soak", type=int, metavar="N", help="instead: N claims, and how the tables grow")
    options = parser.parse_args()
    if options.soak:
        soak.soak(options.soak, RESULTS)
        return
    pairs = [pair for pair in PAIRS if options.only in pair.name]
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.peer, pair.contestant)))
    with ExitStack() as stack:
        url = stack.enter_context(postgresql())
        contestants = Contestants(url, stack)
        runs = {name: contestants[name] for name in names}
        samples: dict[str, list[Sample]] = {name: [] for name in names}
        for _ in range(options.rounds):
            for name, run in runs.items():
                samples[name].append(run(options.seconds))
        results = [result(pair, samples) for pair in pairs] + [round_trips(url)]
    for each in results:
        print(json.dumps(each))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "claims.json").write_text(json.dumps(results, indent=1) + "\n")
    plot.ratios(RESULTS / "claims.svg", results)


def result(pair: Pair, samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """The ratio, and what it was made from."""
    ours, theirs = samples[pair.contestant], samples[pair.peer]
    return {
        "name": pair.name,
        "ratio": round(ratio(list(zip(ours, theirs, strict=True))) * pair.calls, 3),
        "goal": pair.goal,
        "rounds": len(ours),
        pair.contestant: merged(ours) | ({"calls_each": pair.calls} if pair.calls > 1 else {}),
        pair.peer: merged(theirs),
    }


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
    made_from = dict(zip(("claim", "release", "answer"), counts, strict=True))
    return {"name": "round trips in a claim", "ratio": 1 / made_from["claim"], "goal": 1.0, **made_from}


if __name__ == "__main__":
    main()
