"""Pictures of results: bars for ratios, lines for what changes over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# The same results make the same file, whenever and wherever.
mpl.rcParams["svg.hashsalt"] = "portclaim"
_METADATA = {"Date": None, "Creator": None}


def ratios(file: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """A bar for each result's ``ratio``, and a mark at its ``goal``, if it has one."""
    figure = Figure(figsize=(9, 0.6 + 0.36 * len(results)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([each["name"] for each in results], [each["ratio"] for each in results])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    goals = [(each["goal"], number) for number, each in enumerate(results) if each["goal"] is not None]
    axes.plot(*zip(*goals, strict=True), "|", color="tab:red", markersize=18, markeredgewidth=2, label="goal")
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("ratio; red: the goal")
    figure.savefig(file, metadata=_METADATA)


def lines(file: Path, x: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """A picture for each named series of points, one below the other, over the same ``x``."""
    figure = Figure(figsize=(9, 1.6 * len(series)), layout="constrained")
    for axes, (name, points) in zip(
        figure.subplots(len(series), sharex=True, squeeze=False).flat, series.items(), strict=True
    ):
        axes.plot(*zip(*points, strict=True))
        axes.set_ylim(bottom=0)
        axes.set_title(name, loc="left", fontsize="medium")
    axes.set_xlabel(x)
    figure.savefig(file, metadata=_METADATA)
