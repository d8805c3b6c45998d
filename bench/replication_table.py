"""The table of bench/parts/replication.py."""

from __future__ import annotations

from bench.results_of import Results, table


def replication(results: Results) -> str:
    """What a claim costs when its commit waits for a standby."""
    head = ["", "rate by that without", "claims/s", "p50 ms", "claims/s without", "p50 ms without"]
    return table(
        head,
        [
            [
                row["name"],
                row["ratio"],
                *(row[way][key] for way in ("waits", "does_not_wait") for key in ("rate", "p50_ms")),
            ]
            for row in results.rows("replication")
        ],
    )
