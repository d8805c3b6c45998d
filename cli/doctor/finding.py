"""What one check has found."""

from __future__ import annotations

from typing import Literal, NamedTuple

Verdict = Literal["ok", "warning", "trouble"]

STATUS: dict[Verdict, int] = {"ok": 0, "warning": 1, "trouble": 2}
"""The exit status for the worst verdict, as monitoring systems read it."""


class Finding(NamedTuple):
    """``check`` names what was looked at. ``advice``: what to do; empty if it is ok."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def warning(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "warning", found, advice)


def trouble(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "trouble", found, advice)


def several(names: list[str], most: int = 5) -> str:
    """Some of the names, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
