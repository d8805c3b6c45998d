"""The part of docs/performance.md about releases of PostgreSQL and how commits share a sync."""

from __future__ import annotations

from bench.results_of import Results, number, table


def releases(results: Results) -> str:
    """The first release is what the others are compared with, for the same number of clients."""
    rows: list[list[object]] = [
        [
            row["clients"],
            row["name"],
            row["rate"],
            " / ".join(number(row[f"p{part}_ms"]) for part in (50, 95, 99)),
            row["cpu_ms"]["postgresql"],
            number(row["syncs_per_commit"]),
            f"**{number(row['ratio'])}**",
        ]
        for row in results.rows("postgresql")
    ]
    head = ["clients", "", "cycles/s", "p50 / p95 / p99 ms", "PostgreSQL's CPU ms", "syncs a commit", "rate"]
    return table(head, rows)
