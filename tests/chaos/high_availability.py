"""`make chaos-ha`: PostgreSQL with a standby and a cluster of RabbitMQ lose servers and networks under load.

Runs the tests of that, in a private network if it may make one, and prints what the faults cost.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tests.chaos import privacy
from tests.chaos.report import as_markdown, machine
from tests.support.measured_faults import PROPERTY

TESTS = ("test_database_failover.py", "test_restore.py", "test_broker_failover.py")
HEADINGS = (
    "fault",
    "times",
    "failed with a clear error",
    "wrong",
    "answered during the fault: median",
    "worst",
    "answered after it: median",
    "worst",
)


class Collected:
    """Collects the faults from the reports of the tests, and the tests that failed or were skipped."""

    def __init__(self) -> None:
        self.faults: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.failed: list[str] = []
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.skipped:
            self.skipped.append(report.nodeid)
        if report.when == "call":
            for name, fault in report.user_properties:
                if name == PROPERTY and isinstance(fault, dict):
                    self.faults[str(fault["fault"])].append({**fault, "wrong": int(report.failed)})


def cells(fault: str, times: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The line of a fault in the table."""
    shown = [
        fault,
        str(len(times)),
        *(str(sum(each[count] for each in times)) for count in ("failed", "wrong")),
    ]
    for when in ("during_s", "after_s"):
        seconds = [each[when] for each in times if each[when] is not None]
        shown += [f"{of(seconds):.1f} s" if seconds else "" for of in (median, max)]
    return tuple(shown)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.high_availability", description=__doc__)
    parser.add_argument("--only", help="tests whose names match this, as pytest's -k has it")
    parser.add_argument("--results", type=Path, help="JSON file to write; the table goes beside it")
    wanted = parser.parse_args()
    privacy.enter()
    os.environ["PORTCLAIM_CHAOS"] = "long"

    collected, began = Collected(), time.monotonic()
    directory = Path(__file__).parents[1] / "integration"
    only = ["-k", wanted.only] if wanted.only else []
    files = [str(directory / name) for name in TESTS]
    status = int(pytest.main(["--timeout=900", "-rA", *only, *files], plugins=[collected]))
    rows = [cells(fault, times) for fault, times in collected.faults.items()]
    table = Table(title=f"in {(time.monotonic() - began) / 60:.0f} min")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if wanted.results is not None:
        facts = {
            "command": "python -m tests.chaos.high_availability",
            "machine": machine(),
            "seconds": round(time.monotonic() - began),
            "failed": collected.failed,
            "skipped": collected.skipped,
            "faults": [fault for times in collected.faults.values() for fault in times],
        }
        wanted.results.parent.mkdir(parents=True, exist_ok=True)
        wanted.results.write_text(json.dumps(facts, indent=2) + "\n")
        wanted.results.with_suffix(".md").write_text(as_markdown(HEADINGS, rows))
    return status


if __name__ == "__main__":
    sys.exit(main())
