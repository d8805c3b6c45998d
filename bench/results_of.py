"""Reads the files of a run, and finds rows in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"

Row = Mapping[str, Any]

REFERENCE_SIZE = "1000x4x64"
REFERENCE_CLIENTS = 8


class Results:
    """The files by part. A part that was not measured has no rows."""

    def __init__(self, parts: Mapping[str, Mapping[str, Any]]) -> None:
        self.parts = parts

    @classmethod
    def read(cls, names: list[str], folder: Path = FOLDER) -> Results:
        files = {name: folder / f"{name}.json" for name in names}
        return cls({name: json.loads(file.read_text()) for name, file in files.items() if file.exists()})

    def rows(self, part: str, **facts: object) -> Iterator[Row]:
        """The rows of a part with these values; those that were left out too."""
        for row in self.parts.get(part, {}).get("results", []):
            if all(row.get(name) == value for name, value in facts.items()):
                yield row

    def row(self, part: str, **facts: object) -> Row | None:
        """The first measured row with these values."""
        return next((row for row in self.rows(part, **facts) if "left_out" not in row), None)

    def reference(self, part: str, **facts: object) -> Row | None:
        """The row that goals are about; else that of the largest fleet and the most clients below that."""
        rows = [
            row
            for row in self.rows(part, **facts)
            if "left_out" not in row and row.get("clients", 0) <= REFERENCE_CLIENTS
        ]
        exact = [row for row in rows if row.get("size") == REFERENCE_SIZE]
        return max(exact or rows, key=lambda row: (devices(row), row["clients"]), default=None)


def devices(row: Row) -> int:
    """How many devices the fleet of a row has, VFs and PFs. 0: it has no fleet."""
    if "size" not in row:
        return 0
    hosts, ports, vfs = map(int, row["size"].split("x"))
    return hosts * ports * (vfs + 1)


def number(value: float) -> str:
    """A count as it is, anything else with three digits that count; thousands set apart."""
    if isinstance(value, int):
        return f"{value:,}"
    for limit, digits in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= limit:
            return f"{value:,.{digits}f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else "0"


def table(head: list[str], rows: list[list[object]]) -> str:
    """In Markdown. Figures are written as :func:`number` writes them."""
    if not rows:
        return NOT_MEASURED
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


NOT_MEASURED = "This part was not measured."


def _cell(value: object) -> str:
    if value is None:
        return ""
    return number(value) if isinstance(value, int | float) else str(value)
