"""The commands of ``portclaim``, as ``--help`` shows them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from portclaim.cli.main import main

from .text import cell, code, plain, table

_INTRODUCTION = """\
# The command line

`portclaim` calls a scheduler over the message bus; `portclaim db`, `portclaim config`, `portclaim host scan`
and `portclaim host record` work without one. It reads the services' [configuration](configuration.md), of
which it needs `[DEFAULT] transport_url`, and `portclaim db` needs `[database] connection`.

The exit status is 0 when the command did what was asked, 1 when it was refused or failed, with the reason on
standard error, and 2 for wrong usage. `--output json` and `--output yaml` are for programs. `--watch` shows
a list or a description again whenever an event comes. Manual pages and completion: [Run it on your own
machines](../how-to/install.md).

Commands that list something show the first 100 rows at a terminal, and say on standard error how to get
more: `--limit` for another number, `--after` for the next rows, `--all` for all of them. In a pipe, in a
file and with `--output json` or `yaml` they show all rows unless `--limit` is given.

The services are programs too: `portclaim-scheduler`, `portclaim-conductor` and `portclaim-compute-agent`.
Their flags are the [configuration](configuration.md)'s options.
"""


def page() -> str:
    context = click.Context(main, info_name="portclaim")
    overview = table(
        ["Command", "What it does"],
        [
            [f"[`{where.command_path}`](#{_anchor(where)})", cell(where.command.get_short_help_str(200))]
            for where in commands(context)
            if not isinstance(where.command, click.Group)
        ],
    )
    return f"{_INTRODUCTION}\n{overview}" + "".join(map(_section, commands(context)))


def commands(context: click.Context) -> Iterator[click.Context]:
    """This command and, if it is a group, the commands below it."""
    yield context
    command = context.command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from commands(click.Context(below, parent=context, info_name=name))


def _anchor(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _section(context: click.Context) -> str:
    level = "##" if context.parent is None or context.parent.parent is None else "###"
    usage = " ".join(context.command.collect_usage_pieces(context))
    options = [
        [code(record[0]), cell(record[1])]
        for parameter in context.command.get_params(context)
        if (record := parameter.get_help_record(context)) is not None
    ]
    return (
        f"\n{level} {context.command_path} {{ #{_anchor(context)} }}\n\n"
        f"```text\n{context.command_path} {usage}\n```\n\n"
        f"{_help(context.command.help or '')}\n\n"
        f"{table(['Option', 'Meaning'], options)}"
    )


def _help(text: str) -> str:
    r"""A command's help as Markdown. ``\b`` begins a paragraph that keeps its lines."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(map(_paragraph, paragraphs))


def _paragraph(text: str) -> str:
    if text.startswith("\b\n"):
        return f"```text\n{text[2:]}\n```"
    if text.startswith("Example: "):
        return f"```console\n$ {' '.join(text.removeprefix('Example: ').split())}\n```"
    return plain(text)
