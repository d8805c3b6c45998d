"""The README as data: its code blocks, and the commands in them with what they are said to print."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ELIDED = "..."


class Example(NamedTuple):
    """A command after a ``$`` in a ``console`` block, and the lines below it."""

    command: str
    lines: tuple[str, ...]


def readme() -> str:
    return (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks in this language, without the indentation of the list that they stand in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", readme(), re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def examples() -> list[Example]:
    """The commands that are shown with their output, in order."""
    found: list[Example] = []
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("$ "):
            found.append(Example(line.removeprefix("$ "), ()))
        else:
            found[-1] = found[-1]._replace(lines=(*found[-1].lines, line))
    return found


def missing(expected: Sequence[str], output: str) -> str | None:
    """The first expected line that the output does not have after the one before; None if it has all.

    How many spaces there are does not count, nor which digits: times, counts and addresses differ.
    """
    printed = iter([_gist(line) for line in output.splitlines()])
    for line in expected:
        if line.strip() not in {"", ELIDED} and _gist(line) not in printed:
            return line
    return None


def _gist(line: str) -> str:
    return re.sub(r"\d+", "0", " ".join(line.split()))
