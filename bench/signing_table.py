"""The parts of docs/performance.md about signatures and refused messages."""

from __future__ import annotations

from bench.results_of import Results, number, table


def signing(results: Results) -> str:
    rows: list[list[object]] = [
        [
            row["name"],
            f"{number(row['not_signed']['p50_ms'])} / {number(row['signed']['p50_ms'])}",
            f"{number(row['not_signed']['server_ms'])} / {number(row['signed']['server_ms'])}",
            f"**{number(row['server_ratio'])}**",
            row["server_ms_more"],
            row["clients_ms_more"],
        ]
        for row in results.rows("signing")
    ]
    head = [
        "without / with signatures",
        "p50 ms",
        "server CPU ms",
        "CPU by that without",
        "server ms more",
        "sender ms more",
    ]
    return table(head, rows)


def refused_messages(results: Results) -> str:
    rows: list[list[object]] = [
        [row["name"], *(row["cpu_ms"].get(part) for part in _PARTS), row["together_ms"], row["of_good"]]
        for row in results.rows("refused_messages")
    ]
    head = ["CPU ms of one message", "conductor", "RabbitMQ", "PostgreSQL", "together", "by the first"]
    return table(head, rows)


_PARTS = ("conductor", "rabbitmq", "postgresql")
