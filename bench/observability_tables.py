"""The part of docs/performance.md about metrics, traces and logs."""

from __future__ import annotations

from bench.results_of import Results, number, table


def observability(results: Results) -> str:
    """The first row is what the others are compared with."""
    rows: list[list[object]] = [
        [
            row["name"],
            row["rate"],
            row["p50_ms"],
            row["cpu_ms"]["scheduler"] + row["cpu_ms"]["conductor"],
            f"**{number(row['cpu_ratio'])}**",
            f"**{number(row['server_cpu_ratio'])}**",
            number(row["rate_ratio"]),
        ]
        for row in results.rows("observability")
    ]
    head = [
        "",
        "cycles/s",
        "p50 ms",
        "services' CPU ms",
        "their CPU by neither",
        "server CPU by neither",
        "rate by neither",
    ]
    return table(head, rows)
