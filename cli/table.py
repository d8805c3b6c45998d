"""Tables that fit the terminal: nothing of a cell is cut off, however narrow it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import table as rich_table
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

_GAP = 2  # between two columns of rich's, without a box


class Table:
    """Rows of cells under headers. A cell that is a string is shown as it is, without markup.

    A terminal that is narrower folds the cells between words. Where words have no room, each row is shown as
    lines of column and value. Elsewhere than at a terminal each row is one line, if the console is as wide.

    ``widths``: the least width of each column; those of the rows before, where a list comes in parts.
    """

    def __init__(self, *columns: str, widths: Sequence[int] | None = None, with_header: bool = True) -> None:
        self._columns = columns
        self._with_header = with_header
        self.widths = list(widths or [0] * len(columns))
        self._least = [max(map(len, column.split())) for column in columns]  # of words
        self._rows: list[list[Text]] = []
        if with_header:
            self._widen([Text(column) for column in columns])

    def add_row(self, *cells: str | Text) -> None:
        """Add a row: a cell for each column."""
        row = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        self._widen(row)
        self._rows.append(row)

    def _widen(self, cells: Sequence[Text]) -> None:
        for place, cell in enumerate(cells):
            self.widths[place] = max(self.widths[place], cell.cell_len)
            self._least[place] = max(self._least[place], *map(cell_len, cell.plain.split() or [""]))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not console.is_terminal:
            yield self._table(self.widths)
        elif _total(self._least) <= options.max_width:
            yield self._table(_fitted(self.widths, self._least, options.max_width))
        else:
            yield from self._records()

    def _table(self, widths: Sequence[int]) -> RenderableType:
        table = rich_table.Table(box=None, show_header=self._with_header, header_style="bold", pad_edge=False)
        for column, width in zip(self._columns, widths, strict=True):
            table.add_column(column, overflow="fold", width=width)
        for row in self._rows:
            table.add_row(*row)
        return table

    def _records(self) -> Iterator[RenderableType]:
        room = max(map(len, self._columns)) + _GAP
        for number, row in enumerate(self._rows):
            if number or not self._with_header:
                yield Text("")
            for column, cell in zip(self._columns, row, strict=True):
                yield Text.assemble((column.ljust(room), "bold"), cell, overflow="fold")


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _fitted(widths: Sequence[int], least: Sequence[int], available: int) -> list[int]:
    """These widths, or less: the widest columns are made narrower, none of them below its ``least`` width."""
    fitted = list(widths)
    for _ in range(_total(widths) - available):
        widest = max(
            (place for place in range(len(fitted)) if fitted[place] > least[place]), key=fitted.__getitem__
        )
        fitted[widest] -= 1
    return fitted
