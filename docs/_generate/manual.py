"""Manual pages of ``portclaim`` and its commands: ``python -m docs._generate.manual DIRECTORY``.

They are made from the commands' help.
"""

from __future__ import annotations

import inspect
import re
import sys
from importlib.metadata import version
from pathlib import Path

import click

from portclaim.cli.main import main

from .command_line import commands

_SECTION = "1"


def write(directory: Path) -> int:
    """Write a page of each command. Returns how many there are."""
    directory.mkdir(parents=True, exist_ok=True)
    written = 0
    for context in commands(click.Context(main, info_name="portclaim")):
        name = context.command_path.replace(" ", "-")
        (directory / f"{name}.{_SECTION}").write_text(page(context), encoding="utf-8")
        written += 1
    return written


def page(context: click.Context) -> str:
    """One command as roff's ``man`` macros have it."""
    command, name = context.command, context.command_path.replace(" ", "-")
    lines = [
        f'.TH "{name.upper()}" "{_SECTION}" "" "portclaim {version("portclaim")}" "Portclaim"',
        ".SH NAME",
        rf"{_roff(name)} \- {_roff(command.get_short_help_str(limit=200).rstrip('.'))}",
        ".SH SYNOPSIS",
        rf"\fB{_roff(context.command_path)}\fR {_roff(' '.join(command.collect_usage_pieces(context)))}",
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
        ".SH OPTIONS",
    ]
    for parameter in command.get_params(context):
        if (record := parameter.get_help_record(context)) is not None:
            lines += [".TP", rf"\fB{_roff(record[0])}\fR", _roff(record[1]) or r"\&"]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None and not found.hidden:
                about = _roff(found.get_short_help_str(limit=200))
                lines += [".TP", rf"\fB{_roff(f'{name}-{below}'.replace(' ', '-'))}\fR(1)", about]
    if context.parent is not None:
        above = context.parent.command_path.replace(" ", "-")
        lines += [".SH SEE ALSO", rf"\fB{_roff(above)}\fR(1)"]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> list[str]:
    r"""A command's help. ``\b`` begins a paragraph that keeps its lines."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if paragraph.startswith("\b\n"):
            lines += [".PP", ".nf", *map(_roff, paragraph[2:].splitlines()), ".fi"]
        else:
            lines += [".PP", _roff(" ".join(paragraph.split()))]
    return lines


def _roff(text: str) -> str:
    """Text in which nothing is a request or an escape of roff."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    escaped = "".join(letter if letter.isascii() else rf"\[u{ord(letter):04X}]" for letter in escaped)
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    print(f"{write(Path(sys.argv[1]))} manual pages in {sys.argv[1]}")
