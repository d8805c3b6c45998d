"""How the demo shows progress."""

import io

from rich.console import Console

from portclaim.cli.demo.output import Output


def test_the_progress_bar_stops_at_its_end() -> None:
    """Claims that were under way when the last one was served are served too."""
    out = Output()
    out.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with out.progress(32, "claims served") as show:
        show(31, "7 refused")
        show(34, "9 refused")
    text = out.console.file.getvalue()
    assert "34 of 34 claims served, 9 refused" in text
    assert "34 of 32" not in text
