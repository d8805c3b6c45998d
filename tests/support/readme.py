"""The README and the pages that a reader follows step by step, as data.

Their code blocks are commands with what they are said to print, programs, and configuration.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs/tutorial").glob("*.md")),
    *sorted((ROOT / "docs/how-to").glob("*.md")),
]
ELIDED = "..."


class Example(NamedTuple):
    """A command after a ``$`` in a ``console`` block, or a program, and the lines that it prints."""

    command: str
    lines: tuple[str, ...]


class Block(NamedTuple):
    """A code block in its language, without the indentation of the list that it stands in."""

    language: str
    text: str


def pages() -> Iterator[tuple[Path, str]]:
    """Each page with its text."""
    for page in PAGES:
        yield page, page.read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of all pages in this language."""
    return [block.text for block in _all_blocks() if block.language == language]


def examples() -> list[Example]:
    """The commands that are shown with their output, in order."""
    found: list[Example] = []
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("$ "):
            found.append(Example(line.removeprefix("$ "), ()))
        else:
            found[-1] = found[-1]._replace(lines=(*found[-1].lines, line))
    return found


def programs() -> list[Example]:
    """The programs in Python, each with the output that the next block shows, in order."""
    every = _all_blocks()
    return [
        Example(program.text, tuple(output.text.splitlines()) if output.language == "text" else ())
        for program, output in zip(every, [*every[1:], Block("", "")], strict=True)
        if program.language == "python"
    ]


def missing(expected: Sequence[str], output: str) -> str | None:
    """The first expected line that the output does not have after the one before; None if it has all.

    How many spaces there are does not count, nor which digits: times, counts and addresses differ.
    """
    printed = iter([_gist(line) for line in output.splitlines()])
    for line in expected:
        if line.strip() not in {"", ELIDED} and _gist(line) not in printed:
            return line
    return None


def _all_blocks() -> list[Block]:
    found = []
    for _page, text in pages():
        for indent, language, block in re.findall(
            r"^( *)```(\w+)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL
        ):
            found.append(Block(language, re.sub(rf"^{indent}", "", block, flags=re.MULTILINE)))
    return found


def _gist(line: str) -> str:
    return re.sub(r"\d+", "0", " ".join(line.split()))
