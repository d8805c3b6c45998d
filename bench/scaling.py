"""The parts of docs/scaling.md that are made from results: what the measured costs carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from bench.results_of import NOT_MEASURED, Results, Row, number, table

BUSY = 0.7
"""The share of a core's time that is planned for. Above that, queues grow."""

WORKERS = (2, 4, 8, 16, 32)
RATES = (10, 100, 1000)
BROKER_CORES, DATABASE_CORES = 8, 16
"""The machines that the walls are computed for."""

ONE_NODE, QUORUM = "one node", "three nodes, quorum queues"
_SCALED = ("scheduler", "conductor", "rabbitmq", "postgresql")
_KINDS = {"single claims": "rpc", "in batches of 32": "many"}


class Cost(NamedTuple):
    """CPU in ms for one claim, its release and the agent's answer, by part."""

    ms: Mapping[str, float]
    wal_kib: float

    def cores(self, part: str, rate: float) -> float:
        """That the part needs for so many claims in a second."""
        return self.ms[part] * rate / 1000 / BUSY

    def rate(self, part: str, cores: float) -> float:
        """The claims in a second that so many cores carry."""
        return cores * BUSY * 1000 / self.ms[part]


def costs(results: Results) -> str:
    """By part, and what one core carries."""
    rows: list[list[object]] = []
    for kind, cost in _costs(results).items():
        rows.append([f"CPU ms, {kind}", *(cost.ms[part] for part in _SCALED), cost.wal_kib])
        rows.append([f"claims/s of one core, {kind}", *(cost.rate(part, 1) for part in _SCALED), ""])
    return table(["", *_SCALED, "WAL, KiB"], rows)


def carried(results: Results) -> str:
    """What so many workers of the scheduler carry, and what the others need meanwhile."""
    rows: list[list[object]] = []
    for kind, cost in _costs(results).items():
        for workers in WORKERS:
            rate = cost.rate("scheduler", workers)
            needed = [cost.cores(part, rate) for part in _SCALED[1:]]
            rows.append([workers, kind, rate, *needed, cost.wal_kib * rate / 1024])
    head = [
        "workers of the scheduler",
        "claims",
        "claims/s",
        "cores for the conductor",
        "RabbitMQ",
        "PostgreSQL",
    ]
    return table([*head, "WAL, MiB/s"], rows)


def needed(results: Results) -> str:
    """The cores for a rate of claims."""
    rows: list[list[object]] = []
    for kind, cost in _costs(results).items():
        rows += [[number(rate), kind, *(cost.cores(part, rate) for part in _SCALED)] for rate in RATES]
    return table(["claims/s", "claims", *(f"{part}, cores" for part in _SCALED)], rows)


def broker(results: Results) -> str:
    """What a cluster costs by one node, and what it carries."""
    one = results.row("cluster", broker=ONE_NODE, name="claim")
    rows: list[list[object]] = []
    for row in results.rows("cluster", name="claim"):
        ms = row["cpu_ms"]["rabbitmq"]
        nodes = 1 if row["broker"] == ONE_NODE else 3
        by = ms / one["cpu_ms"]["rabbitmq"] if one and one["cpu_ms"]["rabbitmq"] else None
        carries = nodes * BROKER_CORES * BUSY * 1000 / ms if ms else None
        rows.append([row["broker"], ms, by, row["rate"], carries])
    head = ["", "RabbitMQ CPU ms of a cycle, all nodes", "by one node", "cycles/s here"]
    return table([*head, f"cycles/s with {BROKER_CORES} cores a node"], rows)


def wall(results: Results) -> str:
    """Which part is the first that cannot be given more processes, and where."""
    found = _costs(results)
    if not found:
        return NOT_MEASURED
    return "\n".join(f"- {kind.capitalize()}: {_wall(cost, results)}" for kind, cost in found.items())


BLOCKS: dict[str, Callable[[Results], str]] = {
    "costs": costs,
    "carried": carried,
    "needed": needed,
    "broker": broker,
    "wall": wall,
}


def _wall(cost: Cost, results: Results) -> str:
    carried_by = {
        f"one RabbitMQ node with {BROKER_CORES} cores": cost.rate("rabbitmq", BROKER_CORES),
        f"one PostgreSQL with {DATABASE_CORES} cores": cost.rate("postgresql", DATABASE_CORES),
    }
    times = _cluster_times(results)
    if times:
        cluster = cost.rate("rabbitmq", 3 * BROKER_CORES) / times
        carried_by[f"three RabbitMQ nodes with {BROKER_CORES} cores each and quorum queues"] = cluster
    first = min(carried_by, key=lambda name: carried_by[name])
    others = "; ".join(f"{name} {number(rate)}" for name, rate in carried_by.items() if name != first)
    workers = {
        part: max(1, round(cost.cores(part, carried_by[first]))) for part in ("scheduler", "conductor")
    }
    return (
        f"{first} carries {number(carried_by[first])} claims/s and is the first wall ({others}). "
        f"At that rate {workers['scheduler']} workers of the scheduler and {workers['conductor']} of the "
        f"conductor are busy."
    )


def _cluster_times(results: Results) -> float | None:
    """How many times the CPU of one node a cluster with quorum queues takes."""
    one = results.row("cluster", broker=ONE_NODE, name="claim")
    three = results.row("cluster", broker=QUORUM, name="claim")
    return three["cpu_ms"]["rabbitmq"] / one["cpu_ms"]["rabbitmq"] if one and three else None


def _costs(results: Results) -> dict[str, Cost]:
    rows = {kind: results.reference(part) for kind, part in _KINDS.items()}
    return {kind: _cost(row) for kind, row in rows.items() if row and all(_parts(row).values())}


def _cost(row: Row) -> Cost:
    return Cost(_parts(row), row["wal_kib"])


def _parts(row: Row) -> dict[str, float]:
    return {part: row["cpu_ms"][part] for part in _SCALED}
