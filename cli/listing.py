"""Lists: which pages of them a command reads, and how it prints them.

A person at a terminal gets the first page, and a sentence that says how to get more. A pipe, a file and
``--output json|yaml`` get all of it, page by page, so that ``grep`` and a program miss nothing.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from portclaim.cli import documents
from portclaim.cli.options import output_option
from portclaim.cli.watching import watch_option

if TYPE_CHECKING:
    from rich.text import Text

    from portclaim.common.rpc.fields import Message

FIRST_PAGE = 100
PAGE = 1000  # rows of one call when all pages are read

W = TypeVar("W", bound="Message")
Function = TypeVar("Function", bound=Callable[..., Any])
Row = Sequence["str | Text"]


class ListOptions(NamedTuple):
    """How much of a list to show, and in which form."""

    limit: int | None
    after: str | None
    everything: bool
    output: str

    @property
    def all_pages(self) -> bool:
        """Whether to read the list to its end."""
        for_programs = self.output != "table" or not sys.stdout.isatty()
        return self.everything or (self.limit is None and for_programs)


_OPTIONS = (
    click.option(
        "--limit",
        type=click.IntRange(1, 100_000),
        show_default=f"{FIRST_PAGE} at a terminal, else all",
        help="Show no more than this.",
    ),
    click.option("--after", metavar="TEXT", help="What comes next: the text that the last call printed."),
    click.option("--all", "everything", is_flag=True, help="Show all, also at a terminal."),
    output_option,
)


def list_options(function: Function) -> Function:
    """Adds the options that every list has. The command gets them as its argument ``options``."""

    @functools.wraps(function)
    def run(
        *args: Any, limit: int | None, after: str | None, everything: bool, output: str, **kwargs: Any
    ) -> Any:
        if everything and limit is not None:
            raise click.UsageError("--all and --limit do not go together")
        return function(*args, options=ListOptions(limit, after, everything, output), **kwargs)

    for option in reversed((*_OPTIONS, watch_option)):
        run = option(run)
    return run  # type: ignore[return-value]


def show(
    options: ListOptions,
    ask: Callable[[W], Any],
    wanted: W,
    rows_of: str,
    print_rows: Callable[[Iterable[Sequence[Any]]], None],
    narrower: str = "",
) -> None:
    """Ask for a list with the filter ``wanted``, and print it.

    ``rows_of``: the field of the answer that has the rows. ``print_rows`` prints a table of pages of rows.
    ``narrower``: an option that makes the list shorter.
    """
    from portclaim.common.rpc.pages import pages

    limit = PAGE if options.all_pages else options.limit or FIRST_PAGE
    wanted = wanted.model_copy(update={"limit": limit, "after": options.after})
    last: list[Any] = []

    def found() -> Iterator[Sequence[Any]]:
        answers = pages(ask, wanted) if options.all_pages else iter([ask(wanted)])
        for answer in answers:
            last[:] = [answer]
            yield getattr(answer, rows_of)

    print_rows(found()) if options.output == "table" else documents.rows(options.output, found())
    [answer] = last
    if answer.more:
        _say_more(limit, answer.after, narrower)


def _say_more(limit: int, after: str | None, narrower: str) -> None:
    fewer = f", or {narrower} to see fewer" if narrower else ""
    if after is None:
        more = "--limit to see more (this scheduler is too old to say what comes next)"
    else:
        more = f"--all, --limit or --after {after} to see more"
    click.echo(f"there are more than {limit}: use {more}{fewer}", err=True)


def table(columns: Sequence[str], cells: Callable[[Any], Row]) -> Callable[[Iterable[Sequence[Any]]], None]:
    """Prints pages of rows as one table. Its columns get wider with a page that needs it."""

    def print_rows(pages: Iterable[Sequence[Any]]) -> None:
        from portclaim.cli import render

        widths = [0] * len(columns)
        for number, page in enumerate(pages):
            render.page_of_table(columns, map(cells, page), widths, with_header=number == 0)

    return print_rows
