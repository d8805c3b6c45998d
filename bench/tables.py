"""The parts of docs/performance.md that are made from results, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bench import inventory_tables, observability_tables, postgresql_tables
from bench.goals import goals, placement_for
from bench.parts_of_server import SERVER_PARTS
from bench.results_of import NOT_MEASURED, Results, Row, devices, number, table

Cells = list[object]


def facts(results: Results) -> str:
    """The machine, the versions, and how thorough the run was."""
    if not results.parts:
        return NOT_MEASURED
    heads = {name: part for name, part in results.parts.items() if "machine" in part}
    head = next(iter(heads.values()))
    machine, versions, run = head["machine"], head["versions"], head["run"]
    postgresql = versions["postgresql"]
    lines = [
        f"- **Machine**: {machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB of "
        f"memory; the database is on {machine['file_system']}.",
        f"- **PostgreSQL** {postgresql['server_version']} with fsync {postgresql['fsync']}, "
        f"synchronous_commit {postgresql['synchronous_commit']}, shared_buffers "
        f"{postgresql['shared_buffers']}.",
        f"- **Portclaim** {versions['portclaim']}, Python {versions['python']}, oslo.messaging "
        f"{versions['oslo.messaging']}, kombu {versions['kombu']}.",
    ]
    if peers := versions.get("peers"):
        lines.append(
            f"- **Peers**: OpenStack Placement {peers['openstack-placement']}, Nova {peers['nova']}, uWSGI "
            f"{peers['pyuwsgi']}, on the same Python."
        )
    moments = sorted({part["run"]["at"] for part in heads.values()})
    lines.append(
        f"- **Run**: {moments[0]}"
        + (f" to {moments[-1]} ({len(moments)} runs)" if len(moments) > 1 else "")
        + f"; rounds of {number(run['seconds'])} s, {run['rounds']} of them; load before: "
        + f"{number(run['load_before'])}."
    )
    if any(part["run"]["short"] or part["run"]["load_before"] > 1 for part in heads.values()):
        lines.append(
            "\n**These figures come from a short run, or from a machine that did other work at the same "
            "time.** They show that the measurement works. Compare the ratios only, and those with care."
        )
    return "\n".join(lines)


def goal_table(results: Results) -> str:
    met = {True: "yes", False: "**no**", None: "not measured"}
    return table(
        ["", "reached", "goal", "met"],
        [
            [goal.name, goal.reached, f"{'at most ' * goal.at_most}{number(goal.goal)}", met[goal.met]]
            for goal in goals(results)
        ],
    )


def beside(results: Results) -> str:
    """Rates and latencies of all sizes and clients."""
    rows = []
    for size in _sizes(results, "rpc", "many", "http", "placement"):
        for part, label in (
            ("rpc", "Portclaim"),
            ("many", "Portclaim, 32 in a call"),
            ("http", "Portclaim over HTTP"),
            ("placement", "Placement"),
        ):
            rows += [
                [size, row["clients"], label, *_speed(row), *_times(results, row, part)]
                for row in _measured(results, part, size)
            ]
            rows += [
                [size, row["clients"], label, f"not measured: {row['left_out']}"]
                for row in results.rows(part, size=size)
                if "left_out" in row
            ]
    head = ["fleet", "clients", "", "claims/s", "p50 / p95 / p99 ms", "server CPU ms", "Placement by it"]
    return table(head, [row + [""] * (len(head) - len(row)) for row in rows])


def configurations(results: Results) -> str:
    """Placement as it is by default, and asked as Nova asks it."""
    rows = [
        [row["size"], row["configuration"], row["clients"], *_speed(row)]
        for row in results.rows("placement", name="placement")
        if row["configuration"] != "bounded" and "left_out" not in row
    ]
    rows.sort(key=lambda row: _order(row[0]))
    return table(["fleet", "", "clients", "claims/s", "p50 / p95 / p99 ms", "server CPU ms"], rows)


def cpu(results: Results) -> str:
    """By part, at the reference: in a cycle, in a claim alone, in its end."""
    rows: list[Cells] = []
    for part, label in (("rpc", "one"), ("many", "one in a batch of 32"), ("http", "over HTTP")):
        row = results.reference(part)
        for phase, text in (
            ("", "claim, release, answer"),
            ("claim", "claim"),
            ("release", "release, answer"),
        ):
            measured = row and (row.get(phase) if phase else row)
            if measured and measured.get("cpu_ms"):
                rows.append([f"{label}: {text}", *_by_part(measured), measured["server_ms"]])
    placement = _reference_of_placement(results)
    for phase, text in (("", "GET, PUT, DELETE"), ("claim", "GET, PUT"), ("release", "DELETE")):
        measured = placement and (placement.get(phase) if phase else placement)
        if measured and measured.get("cpu_ms"):
            rows.append([f"Placement: {text}", *_by_part(measured), measured["server_ms"]])
    return table(["CPU ms", *SERVER_PARTS, "together"], rows)


def refusals(results: Results) -> str:
    rows: list[Cells] = [
        [row["size"], row["clients"], f"Portclaim: {row['why']} (`{row['alias']}`)", *_speed(row)]
        for row in results.rows("refusals", name="refusal")
    ]
    rows += [
        [row["size"], row["clients"], f"Placement: {row['why']}", *_speed(row)]
        for row in results.rows("placement", name="placement refusal")
    ]
    rows.sort(key=lambda row: (_order(str(row[0])), str(row[2]).startswith("Placement")))
    return table(["fleet", "clients", "refused", "calls/s", "p50 / p95 / p99 ms", "server CPU ms"], rows)


def refusals_in_process(results: Results) -> str:
    rows: list[Cells] = []
    for size in _sizes(results, "refusals"):
        rows += [
            [
                size,
                f"{row['why']} (`{row['alias']}`)",
                *(row[f"p{part}_ms"] for part in (50, 95, 99)),
                row["cpu_ms"]["postgresql"],
                row["cpu_ms"]["clients"],
            ]
            for name in ("refusal in process", "explanation in process")
            for row in results.rows("refusals", name=name, size=size)
        ]
    return table(["fleet", "refused", "p50 ms", "p95 ms", "p99 ms", "PostgreSQL ms", "Python ms"], rows)


def nova(results: Results) -> str:
    rows: list[Cells] = []
    for device in ("PF", "VF"):
        theirs = results.row("nova", name="nova", device=device)
        ours = results.row("nova", name="portclaim", device=device)
        if theirs:
            rows.append([f"Nova: {device}", theirs["claim_ms"], theirs["free_ms"], theirs["claims"], ""])
        if ours:
            ms = [sum(ours[phase]["cpu_ms"].values()) for phase in ("claim", "release")]
            by = theirs["claim_ms"] / ms[0] if theirs else None
            rows.append([f"Portclaim: {device}", *ms, ours["claim"]["calls"], by])
    return table(["CPU ms", "claim", "end", "measured", "Nova's claim by it"], rows)


def bus(results: Results) -> str:
    rows = [[row["name"], row["clients"], *_speed(row), *_bus_parts(row)] for row in results.rows("bus")]
    head = ["", "clients", "calls/s", "p50 / p95 / p99 ms", "server CPU ms", "RabbitMQ", "the service"]
    return table(head, rows)


def _bus_parts(row: Row) -> Cells:
    parts = row["cpu_ms"]
    return [parts["rabbitmq"], parts["echo"] + parts["kombu_echo"]]


def in_process(results: Results) -> str:
    rows = [
        [
            row["name"],
            f"**{number(row['ratio'])}**",
            row["goal"],
            *(row[side]["rate"] for side in ("portclaim", "peer")),
            *(row[side]["cpu_ms"]["postgresql"] for side in ("portclaim", "peer")),
            row["portclaim"]["cpu_ms"]["clients"],
        ]
        for row in results.rows("in_process")
        if "ratio" in row
    ]
    head = [
        "",
        "ratio",
        "goal",
        "Portclaim/s",
        "pgbench/s",
        "PostgreSQL ms",
        "its ms with pgbench",
        "Python ms",
    ]
    return table(head, rows)


def growth(results: Results) -> str:
    rows = [
        [
            row["name"],
            number(row["devices"]),
            row["rate"],
            f"**{number(row['ratio'])}**",
            row["cpu_ms"]["postgresql"],
        ]
        for row in results.rows("growth")
    ]
    return table(["", "devices", "per second", "by the smallest", "PostgreSQL ms"], rows)


def soak(results: Results) -> str:
    seen = list(results.rows("soak"))
    if not seen:
        return NOT_MEASURED
    names = sorted(seen[-1]["mib"])
    chosen = [seen[place] for place in sorted({0, len(seen) // 3, 2 * len(seen) // 3, len(seen) - 1})]
    rows = [
        [number(row["claims"]), row["rate"], row["postgresql_ms"], *(row["mib"][name] for name in names)]
        for row in chosen
    ]
    head = ["claims so far", "claims/s", "PostgreSQL ms", *(f"`{name}` MiB" for name in names)]
    return table(head, rows)


def packing(results: Results) -> str:
    rows = [
        [
            f"{row['name']} at {row['load']:.0%} load",
            *(f"{row['served'][kind]:.1%}" for kind in ("PF", "VF")),
            row.get("of_bound"),
        ]
        for row in results.rows("packing")
    ]
    return table(["", "served: PF requests", "VF requests", "of the bound's PFs"], rows)


def matching(results: Results) -> str:
    row = results.row("matching")
    if row is None:
        return NOT_MEASURED
    return (
        f"The hardest of {number(row['hosts_seen'])} hosts with {row['devices']} devices and "
        f"{row['requests']} requests took {number(row['cpu_ms'])} ms of CPU and {number(row['steps'])} steps "
        f"of the search. The goal is {number(row['goal_ms'])} ms."
    )


BLOCKS: dict[str, Callable[[Results], str]] = {
    "facts": facts,
    "goals": goal_table,
    "beside": beside,
    "configurations": configurations,
    "cpu": cpu,
    "refusals": refusals,
    "refusals-in-process": refusals_in_process,
    "inventory": inventory_tables.inventory,
    "storm": inventory_tables.storm,
    "signs-of-life": inventory_tables.signs_of_life,
    "events": inventory_tables.events,
    "observability": observability_tables.observability,
    "releases": postgresql_tables.releases,
    "nova": nova,
    "bus": bus,
    "in-process": in_process,
    "growth": growth,
    "soak": soak,
    "packing": packing,
    "matching": matching,
}


def _measured(results: Results, part: str, size: str) -> Iterator[Row]:
    for row in results.rows(part, size=size):
        is_claim = (
            row["name"] in {"rpc", "many", "http", "placement"}
            and row.get("configuration", "bounded") == "bounded"
        )
        if is_claim and "left_out" not in row:
            yield row


def _times(results: Results, row: Row, part: str) -> Cells:
    theirs = placement_for(results, row) if part != "placement" else None
    return [f"**{number(theirs['server_ms'] / row['server_ms'])}**" if theirs and row["server_ms"] else ""]


def _speed(row: Row) -> list[Any]:
    latencies = " / ".join(number(row[f"p{part}_ms"]) for part in (50, 95, 99))
    return [row["rate"], latencies, row["server_ms"]]


def _by_part(row: Row) -> Cells:
    return [row["cpu_ms"].get(part) for part in SERVER_PARTS]


def _reference_of_placement(results: Results) -> Row | None:
    ours = results.reference("rpc") or results.reference("many")
    return (ours and placement_for(results, ours)) or results.reference("placement", configuration="bounded")


def _sizes(results: Results, *parts: str) -> list[str]:
    return sorted({row["size"] for part in parts for row in results.rows(part)}, key=_order)


def _order(size: str) -> int:
    return devices({"size": size})
