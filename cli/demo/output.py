"""The output of the demo: numbered headlines, facts, trees and SQL. It has colours on a terminal only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from uuid import UUID

import sqlalchemy as sa
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from portclaim.cli import render
from portclaim.common.rpc.claim_messages import Device, FilterResult

INDENT = 3
_SQL = Syntax("", "postgresql", theme="ansi_dark", background_color="default")


class Output:
    """Prints what the user sees. ``names``: the names of instances. Others are shown by their ids."""

    def __init__(self) -> None:
        self.console = render.console()
        self.names: dict[UUID, str] = {}
        self._number = 0

    def title(self, text: str) -> None:
        self.console.print(Text(text, style="bold"))

    def headline(self, text: str) -> None:
        """Begin the next step."""
        self._number += 1
        self.console.print()
        self.console.print(Text.assemble((f"{self._number}. ", "bold cyan"), (text, "bold")))

    def fact(self, text: str | Text) -> None:
        self._print(text if isinstance(text, Text) else Text(text))

    def next(self, commands: Sequence[tuple[str, str]]) -> None:
        """What to try next: commands, and what each shows."""
        self.fact("Try next:")
        self.table(("command", "shows"), commands)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Say what is being done, and afterwards how long it took."""
        begun = time.monotonic()
        with self.console.status(f"{what} ..."):
            yield
        self._print(Text.assemble(what, (f"  {time.monotonic() - begun:.1f} s", "dim")))

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
        """A progress bar, on a terminal only. Yields the function that updates it.

        The total grows with what is completed beyond it: work that was under way when the total was reached.
        """
        bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn(f"{{task.completed}} of {{task.total}} {unit}, {{task.description}}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        with bar:
            task = bar.add_task("", total=total)
            yield lambda completed, more: bar.update(
                task, completed=completed, total=max(total, completed), description=more
            )

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table. Columns of numbers are aligned to the right."""
        rows = list(rows)
        table = Table(box=None, header_style="dim", pad_edge=False)
        for place, column in enumerate(columns):
            is_number = all(isinstance(row[place], int) for row in rows)
            table.add_column(column, justify="right" if is_number else "left")
        for row in rows:
            table.add_row(*(Text("" if value is None else str(value)) for value in row))
        self._print(table)

    def filters(self, results: Sequence[FilterResult]) -> None:
        """How many hosts and devices are left after the first filter, and after each that removed devices."""
        left = [results[0], *(after for before, after in pairwise(results) if after.devices < before.devices)]
        self.table(("after the filter", "hosts", "devices"), [(r.filter, r.hosts, r.devices) for r in left])

    def trees(self, devices: Sequence[Device], limit: int = 100) -> None:
        """The PF/VF trees of the hosts of these devices."""
        for tree in render.trees(self._named(device) for device in devices[:limit]):
            self._print(tree)
        if len(devices) > limit:
            self.fact(f"... and {len(devices) - limit} more")

    def statement(self, sql: str) -> None:
        """An SQL statement."""
        text = _SQL.highlight(sql)
        text.rstrip()
        self._print(text)

    def query(self, question: str, sql: str, rows: Sequence[sa.RowMapping]) -> None:
        """A question, its SQL and the answer. A single row has counts that must be 0."""
        self.console.print()
        self.fact(Text(question, style="italic"))
        self.statement(sql)
        if len(rows) == 1:
            answer = ", ".join(f"{name}: {value}" for name, value in rows[0].items())
            self.fact(Text(answer, style="bold red" if any(rows[0].values()) else "bold green"))
        else:
            self.table(list(rows[0].keys()), [tuple(row.values()) for row in rows])

    def named(self, text: str) -> str:
        """The text, with the names of instances instead of their ids."""
        for instance, name in self.names.items():
            text = text.replace(f"instance {instance}", name)
        return text

    def _named(self, device: Device) -> Device:
        return device.model_copy(update={"reason": device.reason and self.named(device.reason)})

    def _print(self, what: Text | Table | Tree) -> None:
        self.console.print(Padding(what, (0, 0, 0, INDENT), expand=False))
