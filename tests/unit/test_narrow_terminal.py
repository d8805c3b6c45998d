"""Tables at a terminal that is narrower than they are: nothing of a cell is cut off."""

import click
import pytest

from portclaim.cli import render

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
    assert any(line.startswith(HOST) for line in lines)
    letters = sorted("".join(lines).replace(" ", ""))
    assert [each for each in sorted("".join((*COLUMNS, *ROW)).replace(" ", "")) if each.isalnum()] == [
        each for each in letters if each.isalnum()
    ]


def test_a_name_that_is_longer_than_half_of_the_terminal_is_folded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(monkeypatch, capsys, 40)
    assert "…" not in "".join(lines)
