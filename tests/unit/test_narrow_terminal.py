"""Tables at a terminal that is narrower than they are: nothing of a cell is cut off."""

import io

import click
import pytest
from rich.console import Console

from portclaim.cli import render
from portclaim.cli.table import Table

HOST = "compute-0007.rack-12.example.org"
COLUMNS = (
    "host",
    "last report",
    "PFs free",
    "PFs held",
    "VFs free",
    "VFs held",
    "claims",
    "state",
    "drained",
)
ROW = (
    HOST,
    "12 s ago",
    "3",
    "1",
    "120",
    "8",
    "9",
    "up, drained: new power supply",
    "0000:81:00.0 (flapping)",
)


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int) -> list[str]:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    render.rows(COLUMNS, [ROW])
    return click.unstyle(capsys.readouterr().out).splitlines()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_every_cell_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    lines = shown(monkeypatch, capsys, width)
    assert all(len(line) <= width for line in lines)
    assert not any("…" in line for line in lines)
    assert any(HOST in line for line in lines)
    letters = sorted("".join(lines).replace(" ", ""))
    assert [each for each in sorted("".join((*COLUMNS, *ROW)).replace(" ", "")) if each.isalnum()] == [
        each for each in letters if each.isalnum()
    ]


def test_a_name_that_is_longer_than_half_of_the_terminal_is_folded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(monkeypatch, capsys, 40)
    assert "…" not in "".join(lines)


def test_nothing_is_broken_within_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {word for text in (*COLUMNS, *ROW) for word in text.split()}
    for width in range(40, 120):
        lines = shown(monkeypatch, capsys, width)
        assert words <= {word for line in lines for word in line.split()}, f"{width} columns"
        assert all(len(line) <= width for line in lines)


def test_where_words_have_no_room_each_row_is_shown_as_lines_of_column_and_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(monkeypatch, capsys, 50) == [
        "host         compute-0007.rack-12.example.org",
        "last report  12 s ago",
        "PFs free     3",
        "PFs held     1",
        "VFs free     120",
        "VFs held     8",
        "claims       9",
        "state        up, drained: new power supply",
        "drained      0000:81:00.0 (flapping)",
    ]


def test_such_rows_are_apart_from_each_other_also_between_the_parts_of_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "50")
    widths = [0] * len(COLUMNS)
    render.page_of_table(COLUMNS, [ROW, ROW], widths, with_header=True)
    render.page_of_table(COLUMNS, [ROW], widths, with_header=False)
    rows = click.unstyle(capsys.readouterr().out).strip().split("\n\n")
    assert len(rows) == 3
    assert rows[0] == rows[1] == rows[2]


def test_elsewhere_than_at_a_terminal_each_row_is_one_line_however_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    render.rows(("entry", "reason"), [("pci.0", "x" * 5000)])
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["entry", "reason"]
    assert row == "pci.0  " + "x" * 5000


def test_a_cell_is_text_without_markup() -> None:
    table = Table("host")
    table.add_row("[bold]h[/bold]")
    file = io.StringIO()
    Console(file=file, width=80).print(table)
    assert "[bold]h[/bold]" in file.getvalue()
