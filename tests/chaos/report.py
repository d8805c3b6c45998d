"""The table of results: the faults, their outcomes and the times until recovery."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.table import Table

from tests.chaos.campaign import Campaign, Row
from tests.chaos.clients import Load

HEADINGS = (
    "fault",
    "times injected",
    "requests in flight",
    "failed with a clear error",
    "wrong",
    "recovery: median",
    "worst",
)


def lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The cells of one line for each fault, and of the last line with the totals."""
    found = [_cells(row) for row in rows]
    everything = Row("all")
    for row in rows:
        everything.injected += row.injected
        everything.in_flight += row.in_flight
        everything.failed += row.failed
        everything.wrong += [wrong for wrong in row.wrong if wrong not in everything.wrong]
        everything.recoveries += row.recoveries
    return [*found, _cells(everything)]


def _cells(row: Row) -> tuple[str, ...]:
    if row.skipped is not None:
        return (row.fault, f"skipped: {row.skipped}", *[""] * 5)
    seconds = [f"{of(row.recoveries):.1f} s" if row.recoveries else "" for of in (median, max)]
    return (row.fault, *map(str, (row.injected, row.in_flight, row.failed, len(row.wrong))), *seconds)


def table(campaign: Campaign, title: str) -> Table:
    """For the terminal."""
    shown = Table(title=title)
    for number, heading in enumerate(HEADINGS):
        shown.add_column(heading, justify="right" if number else "left")
    for cells in lines(list(campaign.rows.values())):
        shown.add_row(*cells, style="bold" if cells[0] == "all" else "")
    return shown


def work(load: Load) -> str:
    """How many moves ended in which way, and what else was done."""
    ended = ", ".join(f"{count} {how}" for how, count in sorted(load.moves.items()))
    done = ", ".join(f"{count} {what}" for what, count in sorted(load.done.items()))
    return f"{load.moves.total()} moves: {ended or 'none'}\nbeside: {done}"


def markdown(rows: Sequence[Row]) -> str:
    """For docs/reliability.md."""
    return as_markdown(HEADINGS, lines(rows))


def as_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column has names and the others have numbers."""
    head = [f"| {' | '.join(headings)} |", f"|---{'|--:' * (len(headings) - 1)}|"]
    return "\n".join([*head, *(f"| {' | '.join(cells)} |" for cells in rows)]) + "\n"


def write(campaign: Campaign, file: Path, command: str, seed: int, seconds: float) -> None:
    """Write the figures as JSON, and the table into a file next to it."""
    load = campaign.load
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "command": command,
        "seed": seed,
        "machine": machine(),
        "seconds": round(seconds),
        "calls": load.calls,
        "refused": load.refused,
        "longest_call_s": round(load.longest, 1),
        "moves": dict(sorted(load.moves.items())),
        "claims_judged_by_the_solver": len(campaign.ended),
        "done": dict(sorted(load.done.items())),
        "faults": [row.as_facts() for row in campaign.rows.values()],
    }
    file.write_text(json.dumps(facts, indent=2) + "\n")
    file.with_suffix(".md").write_text(markdown(list(campaign.rows.values())))


def machine() -> dict[str, object]:
    """On what the figures were measured."""
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    return {"cores": os.cpu_count(), "memory_gb": memory, "python": platform.python_version()}
