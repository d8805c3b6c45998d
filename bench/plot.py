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
    if goals:
        axes.plot(
            *zip(*goals, strict=True), "|", color="tab:red", markersize=18, markeredgewidth=2, label="goal"
        )
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


def groups(file: Path, x: str, bars: Mapping[str, Mapping[str, float]]) -> None:
    """A group of bars for each name, one bar for each of its parts, on a logarithmic axis."""
    parts = list(dict.fromkeys(part for bar in bars.values() for part in bar))
    figure = Figure(figsize=(9, 0.9 + 0.22 * len(bars) * (len(parts) + 1)), layout="constrained")
    axes = figure.subplots()
    height = 1 / (len(parts) + 1)
    for number, part in enumerate(parts):
        shown = [(place, bar[part]) for place, bar in enumerate(bars.values()) if bar.get(part)]
        places = [place + (number - len(parts) / 2) * height for place, _ in shown]
        drawn = axes.barh(places, [value for _, value in shown], height, label=part)
        axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize="small")
    axes.set_yticks(range(len(bars)), list(bars))
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel(x)
    axes.legend(fontsize="small")
    figure.savefig(file, metadata=_METADATA)
