"""Pictures of results, as SVG that is written by hand: bars for ratios, lines for what changes over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

_WIDTH, _LEFT, _RIGHT, _ROW = 760, 300, 60, 28
_INK, _GREY, _BAR, _GOAL = "#222", "#999", "#4c78a8", "#d62728"
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2")


def ratios(file: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """A bar for each result's ``ratio``, and a mark at its ``goal``, if it has one."""
    height = _ROW * len(results) + 50
    scale = (_WIDTH - _LEFT - _RIGHT) / max(1.0, *(each["ratio"] for each in results))
    parts = []
    for number, each in enumerate(results):
        top = 10 + number * _ROW
        width = each["ratio"] * scale
        parts.append(_text(_LEFT - 8, top + 14, each["name"], anchor="end"))
        parts.append(f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_ROW - 9}" fill="{_BAR}"/>')
        parts.append(_text(_LEFT + width + 5, top + 14, f"{each['ratio']:.2f}"))
        if each["goal"] is not None:
            x = _LEFT + each["goal"] * scale
            parts.append(_line(x, top - 3, x, top + _ROW - 6, _GOAL, 2))
    parts.append(_line(_LEFT, 5, _LEFT, height - 40, _GREY))
    parts.append(_text(_LEFT, height - 16, "ratio; red: the goal", colour=_GREY))
    _write(file, height, parts)


def lines(file: Path, x: str, y: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """A line for each named series of points."""
    height, left, top, bottom = 320, 70, 20, 60
    most_x = max(point[0] for points in series.values() for point in points) or 1
    most_y = max(point[1] for points in series.values() for point in points) or 1
    right, floor = _WIDTH - 20, height - bottom

    def place(point: tuple[float, float]) -> str:
        return (
            f"{left + point[0] / most_x * (right - left):.1f},{floor - point[1] / most_y * (floor - top):.1f}"
        )

    parts = [_line(left, floor, right, floor, _GREY), _line(left, top, left, floor, _GREY)]
    for part in (0.0, 0.5, 1.0):
        parts.append(_text(left - 6, floor - part * (floor - top) + 4, f"{part * most_y:,.0f}", anchor="end"))
        parts.append(
            _text(left + part * (right - left), floor + 16, f"{part * most_x:,.0f}", anchor="middle")
        )
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(place(point) for point in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_text(left + 10 + number * 150, height - 8, name, colour=colour))
    parts.append(_text(right, floor + 32, x, anchor="end", colour=_GREY))
    parts.append(_text(left + 6, top + 4, y, colour=_GREY))
    _write(file, height, parts)


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = _INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return f'<path d="M{x1:.1f},{y1:.1f} L{x2:.1f},{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _write(file: Path, height: int, parts: Sequence[str]) -> None:
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
