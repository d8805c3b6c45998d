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
    yield Goal("rate in process by the limit, 8 clients", 0.7, _ratio(results, "in_process", "8 clients"))
    pf = "a PF with 256 VFs, 8 clients"
    yield Goal(f"rate in process by the limit, {pf}", 0.7, _ratio(results, "in_process", pf))
    yield Goal("calls over the bus by those of an echo, 8 clients", 0.7, _by_echo(results))
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


def _beside(results: Results, part: str, cost: Callable[[Row], float | None]) -> float | None:
    """How many times the CPU of ours Placement takes, on the same fleet with as many clients."""
    ours = results.reference(part)
    if ours is None or ours["size"] != REFERENCE_SIZE:
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


def _by_echo(results: Results) -> float | None:
    ours = results.reference("rpc")
    echo = ours and results.row("bus", name="oslo.messaging echo", clients=ours["clients"])
    return ours["rate"] * 3 / echo["rate"] if ours and echo else None
