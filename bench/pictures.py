"""The pictures of docs/performance.md, drawn from results."""

from __future__ import annotations

from pathlib import Path

from bench import plot
from bench.goals import placement_for
from bench.parts.soak import WORKED_ON
from bench.results_of import Results, number


def draw(results: Results, folder: Path) -> None:
    """One file for each, where its part was measured."""
    _beside(results, folder / "beside.svg")
    ratios = [row for row in results.rows("in_process") if "ratio" in row]
    if ratios:
        plot.ratios(folder / "in_process.svg", ratios)
    growth = [
        {**row, "name": f"{row['name']}, {number(row['devices'])} devices", "goal": None}
        for row in results.rows("growth")
    ]
    if growth:
        plot.ratios(folder / "growth.svg", growth)
    packing = [
        {"name": f"{row['name']} at {row['load']:.0%} load", "ratio": row["served"]["PF"], "goal": None}
        for row in results.rows("packing")
    ]
    if packing:
        plot.ratios(folder / "packing.svg", packing)
    _soak(results, folder / "soak.svg")


def _beside(results: Results, file: Path) -> None:
    bars = {}
    for part, label in (("rpc", "one claim"), ("many", "one in a batch of 32")):
        row = results.reference(part)
        if row:
            bars[f"Portclaim: {label}"] = row["cpu_ms"]
            theirs = placement_for(results, row)
            if theirs:
                bars["Placement"] = theirs["cpu_ms"]
    server = {
        name: {part: ms for part, ms in costs.items() if part != "clients"} for name, costs in bars.items()
    }
    if server:
        plot.groups(file, "CPU in ms for a claim and its end, by part", server)


def _soak(results: Results, file: Path) -> None:
    seen = list(results.rows("soak"))
    if seen:
        series = {"claims per second": [(row["claims"], row["rate"]) for row in seen]}
        series |= {f"{name}, MiB": [(row["claims"], row["mib"][name]) for row in seen] for name in WORKED_ON}
        plot.lines(file, "claims", series)
