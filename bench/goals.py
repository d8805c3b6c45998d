"""What Portclaim should reach, and what it has reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench.results_of import REFERENCE_SIZE, Results, Row


class Goal(NamedTuple):
    """``reached`` of ``goal``. More is better, unless ``at_most``. None: not measured."""

    name: str
    goal: float
    reached: float | None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        if self.reached is None:
            return None
        return self.reached <= self.goal if self.at_most else self.reached >= self.goal


def goals(results: Results) -> Iterator[Goal]:
    """All of them, in the order of the page."""
    yield Goal("server CPU of a cycle at Placement, by one here", 50, _beside(results, "rpc", _cycle))
    yield Goal("the same, by one in a batch of 32", 200, _beside(results, "many", _cycle))
    yield Goal("server CPU of a claim alone at Placement, by one here", 50, _beside(results, "rpc", _claim))
    yield Goal("the same, by one in a batch of 32", 200, _beside(results, "many", _claim))
    over_http = _beside(results, "http", _cycle)
    yield Goal("server CPU of a cycle at Placement, by one here over HTTP", 40, over_http)
    alone_over_http = _beside(results, "http", _claim)
    yield Goal("server CPU of a claim alone at Placement, by one here over HTTP", 40, alone_over_http)
    largest_size = "5000x4x64"
    yield Goal(
        "5000 hosts: a claim alone at Placement, by one here",
        150,
        _beside(results, "rpc", _claim, largest_size),
    )
    yield Goal("the same, by one in a batch of 32", 600, _beside(results, "many", _claim, largest_size))
    yield Goal("claims per second in batches of 32", 1500, _batches(results))
    yield Goal("p50 of a claim of one client by that of an echo", 2, _by_echo_of_one(results), at_most=True)
    refused = _refused(results, REFERENCE_SIZE)
    yield Goal("the slowest refusal in process, p50, ms", 10, refused, at_most=True)
    larger = _refused(results, largest_size)
    yield Goal(
        "the same with 5000 hosts, by it", 1.5, larger / refused if larger and refused else None, at_most=True
    )
    explained = results.row("refusals", name="explanation in process", size=largest_size)
    yield Goal("an explanation with 5000 hosts, p50, ms", 30, explained and explained["p50_ms"], at_most=True)
    changed = results.row("inventory", name="a changed VF")
    yield Goal(
        "CPU of a report of one changed VF, by the first", 0.1, changed and changed["of_first"], at_most=True
    )
    stormy = results.row("inventory", name="storm of first reports")
    yield Goal("1000 first reports at once, by `COPY`", 4, stormy and stormy["ratio"], at_most=True)
    claimed = stormy and stormy["claims_meanwhile"]["p99_ms"]
    yield Goal("p99 of a claim and its end meanwhile, ms", 1000, claimed, at_most=True)
    alive = results.row("inventory", name="signs of life")
    cores = alive and sum(alive["cores"].values()) - sum(alive["cores_at_rest"].values())
    yield Goal("cores for the signs of life of 10,000 agents", 0.5, cores, at_most=True)
    yield Goal("rate in process by the limit, 8 clients", 0.7, _ratio(results, "in_process", "8 clients"))
    batches = _ratio(results, "in_process", "8 clients, 32 claims at once")
    yield Goal("the same with 32 claims at once", 1.5, batches)
    pf = "a PF with 256 VFs, 8 clients"
    yield Goal(f"rate in process by the limit, {pf}", 0.7, _ratio(results, "in_process", pf))
    yield Goal("cycles over the bus by an echo of the same messages, 8 clients", 0.7, _by_echo(results))
    largest = max(
        results.rows("growth", name="claim, release and answer"),
        key=lambda row: row["devices"],
        default=None,
    )
    yield Goal("rate on the largest fleet by that on the smallest", 0.8, largest and largest["ratio"])
    trips = results.row("in_process", name="round trips")
    yield Goal("round trips to PostgreSQL in a claim", 1, trips and trips["claim"], at_most=True)
    pack = results.row("packing", name="pack", load=0.9)
    yield Goal("whole ports that `pack` serves by the bound, at 90% load", 0.97, pack and pack["of_bound"])
    crowd = results.row("packing", name="pack, 32 clients", load=0.9)
    yield Goal("the same with 32 clients, by one client", 0.95, crowd and crowd["of_one"])
    worst = results.row("matching")
    yield Goal("the hardest host to match, ms", 10, worst and worst["cpu_ms"], at_most=True)


def _cycle(row: Row) -> float | None:
    return row["server_ms"]


def _claim(row: Row) -> float | None:
    return row["claim"]["server_ms"] if "claim" in row else None


def _beside(
    results: Results, part: str, cost: Callable[[Row], float | None], size: str = REFERENCE_SIZE
) -> float | None:
    """How many times the CPU of ours Placement takes, on the same fleet with as many clients."""
    ours = results.reference(part, size=size)
    if ours is None:
        return None
    theirs = placement_for(results, ours)
    if theirs is None or not (ms := cost(ours)) or not (their_ms := cost(theirs)):
        return None
    return their_ms / ms


def placement_for(results: Results, ours: Row) -> Row | None:
    """Placement with the same fleet and clients, configured as recommended."""
    return results.row(
        "placement", configuration="bounded", size=ours["size"], clients=ours["clients"], name="placement"
    )


def _ratio(results: Results, part: str, name: str) -> float | None:
    row = results.row(part, name=name)
    return row and row["ratio"]


def _batches(results: Results) -> float | None:
    rates = [row["claim"]["rate"] for row in results.rows("many", size=REFERENCE_SIZE) if "claim" in row]
    return max(rates, default=None)


def _by_echo_of_one(results: Results) -> float | None:
    ours = results.row("rpc", size=REFERENCE_SIZE, clients=1)
    echo = results.row("bus", name="oslo.messaging echo", clients=1)
    claim = ours and ours.get("claim")
    return claim["p50_ms"] / echo["p50_ms"] if claim and echo else None


def _refused(results: Results, size: str) -> float | None:
    """The p50 of the slowest kind of refusal in process."""
    rows = results.rows("refusals", name="refusal in process", size=size)
    return max((row["p50_ms"] for row in rows), default=None)


def _by_echo(results: Results) -> float | None:
    """A cycle by what the bus alone takes for its calls and its cast."""
    ours = results.reference("rpc")
    name = "oslo.messaging echo of the same messages"
    echo = ours and results.row("bus", name=name, clients=ours["clients"])
    return ours["rate"] / echo["rate"] if ours and echo else None
