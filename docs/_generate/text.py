"""Pieces of Markdown."""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Iterable, Sequence

_ROLE = re.compile(r":(?:class|meth|func|mod|data|attr):`~?(?:[\w.]*\.)?(\w+)`")
_CODE = re.compile(r"(`[^`]*`)")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; each cell is Markdown on one line."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def cell(text: str) -> str:
    """Plain text or a docstring as the cell of a table."""
    return plain(" ".join(text.split())).replace("|", r"\|")


def plain(text: str) -> str:
    """Text in which only code is marked up. What looks like HTML or emphasis is shown as it is."""
    parts = _CODE.split(_unmarked(text))
    shown = {"<": "&lt;", "*": r"\*"}
    return "".join(
        part if part.startswith("`") else re.sub("[<*]", lambda found: shown[found[0]], part)
        for part in parts
    )


def code(text: str) -> str:
    """Code as the cell of a table. In a code span of Markdown, an escaped bar would show its backslash."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def docstring(thing: object) -> str:
    """A docstring as Markdown. Raises LookupError if there is none."""
    text = inspect.getdoc(thing)
    if not text:
        raise LookupError(f"{thing} has no docstring")
    return re.sub(r"::$", ":", _unmarked(text), flags=re.MULTILINE)


def _unmarked(text: str) -> str:
    """Without the markup of reStructuredText."""
    return _ROLE.sub(r"`\1`", text).replace("``", "`")
