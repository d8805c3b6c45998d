"""A line that shows how far a command is, while it waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Gives a function that changes the text of the line.

    The line is on standard error, with the time that has passed. It is there only on a terminal, and only
    until the block ends.
    """
    out = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as line:
        task = line.add_task("", total=None)
        yield lambda text: line.update(task, description=text)
