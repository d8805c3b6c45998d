"""What one check has found."""

from __future__ import annotations

from typing import Literal, NamedTuple

Verdict = Literal["ok", "not checked", "warning", "trouble"]

STATUS: dict[Verdict, int] = {"ok": 0, "not checked": 0, "warning": 1, "trouble": 2}
"""The exit status for the worst verdict, as monitoring systems read it."""


class Finding(NamedTuple):
    """``check`` names what was looked at. ``advice``: what to do; empty if it is ok."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def not_checked(check: str, what: str, advice: str) -> Finding:
    return Finding(check, "not checked", what, advice)


def warning(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "warning", found, advice)


def trouble(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "trouble", found, advice)


def several(names: list[str], number: int | None = None, most: int = 5) -> str:
    """Some of the names, and how many more there are. ``number``: how many, if not all are named."""
    shown = names[:most]
    more = (len(names) if number is None else number) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
