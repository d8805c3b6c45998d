"""The parts of docs/performance.md about reports of hosts and about events."""

from __future__ import annotations

from bench.parts_of_server import SERVER_PARTS
from bench.results_of import NOT_MEASURED, Results, number, table


def inventory(results: Results) -> str:
    rows = [
        [row["name"], row["ms"], *row["cpu_ms"].values(), f"**{number(row['of_first'])}**"]
        for row in results.rows("inventory")
        if "of_first" in row
    ]
    return table(["a report of 8 x 240 VFs", "ms", "PostgreSQL ms", "Python ms", "CPU by the first"], rows)


def storm(results: Results) -> str:
    row = results.row("inventory", name="storm of first reports")
    if row is None:
        return NOT_MEASURED
    return table(
        ["", "measured"],
        [
            ["hosts", row["size"]],
            ["until all were accepted, s", row["took_s"]],
            ["`COPY` of the same rows, s", row["copy_s"]],
            ["ratio", f"**{number(row['ratio'])}**"],
            ["p99 of a claim and its end before, ms", row["claims_before"]["p99_ms"]],
            ["the same meanwhile, ms", row["claims_meanwhile"]["p99_ms"]],
            ["claims/s meanwhile", row["claims_meanwhile"]["rate"]],
            ["memory of a worker of the conductor before, MiB", row["conductor_mib"]["before"]],
            ["the same at most, MiB", row["conductor_mib"]["most"]],
        ],
    )


def signs_of_life(results: Results) -> str:
    row = results.row("inventory", name="signs of life")
    if row is None:
        return NOT_MEASURED
    rows: list[list[object]] = [
        [part, row["cores"][part], row["cores_at_rest"][part]]
        for part in SERVER_PARTS
        if part in row["cores"]
    ]
    rows.append(["together", *(sum(row[name].values()) for name in ("cores", "cores_at_rest"))])
    return table(
        [f"cores, {number(row['per_second'])} signs of life per second", "with them", "at rest"], rows
    )


def events(results: Results) -> str:
    rows = [
        [
            row["name"],
            row["claims_per_second"],
            row["postgresql_ms_per_claim"],
            row["python_ms_per_claim"],
            row["delay_p50_s"],
            row["delay_p99_s"],
        ]
        for row in results.rows("events")
    ]
    return table(["", "claims/s", "PostgreSQL ms", "Python ms", "delay p50 s", "delay p99 s"], rows)
