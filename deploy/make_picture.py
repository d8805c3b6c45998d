"""make_picture.py FILE: run ``portclaim demo`` and draw three of its steps as a terminal, in an SVG file.

``make picture`` makes docs/images/demo.svg with it. The file is complete: it loads no font and no script.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from portclaim.cli.demo.output import Output
from portclaim.cli.demo.runner import run

COLUMNS = 100
STEPS = (3, 4, 8)
QUERIES = ("Was a port ever held whole while one of its VFs was held too?",)  # of step 8, which has four
FONTS = "ui-monospace, 'DejaVu Sans Mono', 'Liberation Mono', Menlo, Consolas, monospace"
COLOURS = TerminalTheme(
    background=(24, 26, 31),
    foreground=(214, 218, 224),
    normal=[
        (24, 26, 31),
        (240, 113, 120),
        (134, 205, 130),
        (229, 192, 104),
        (110, 170, 245),
        (199, 146, 234),
        (94, 200, 205),
        (214, 218, 224),
    ],
    bright=[
        (128, 134, 145),
        (255, 139, 146),
        (160, 225, 155),
        (245, 215, 140),
        (140, 190, 255),
        (220, 170, 250),
        (130, 225, 230),
        (255, 255, 255),
    ],
)


class Picture(Output):
    """Records the chosen steps. The others are printed to nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self._nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - open until the program ends
        self._picture = Console(
            record=True, width=COLUMNS, file=self._nowhere, force_terminal=False, color_system="truecolor"
        )
        self._other = Console(width=COLUMNS, file=self._nowhere)
        self.console = self._picture
        self._left_out = False
        self.console.print(Text.assemble(("$ ", "bold green"), "make demo"))

    def headline(self, text: str) -> None:
        if self._number + 1 in STEPS:
            if self._left_out:
                self._picture.print()
                self._picture.print(Text("...", style="dim"))
            self._left_out = False
            self.console = self._picture
        else:
            self._left_out = True
            self.console = self._other
        super().headline(text)

    def query(self, question: str, sql: str, rows: Sequence[sa.RowMapping]) -> None:
        if question in QUERIES:
            super().query(question, sql, rows)

    def title(self, text: str) -> None:
        if self.console is self._picture:
            super().title(text)

    def svg(self) -> str:
        """The picture. Fonts are those of the machine that shows it."""
        form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        form = re.sub(r"<!--.*?-->\s*", "", form, flags=re.DOTALL)
        form = re.sub(r"font-family: (Fira Code, monospace|arial)", f"font-family: {FONTS}", form)
        drawn = self._picture.export_svg(title="make demo", theme=COLOURS, code_format=form, unique_id="demo")
        return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines())


def main(file: Path) -> int:
    picture = Picture()
    status = run(picture)
    if status == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(picture.svg())
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
