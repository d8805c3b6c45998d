"""Shows at the end of a run how many answers agreed, file by file."""

from collections.abc import Iterator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    yield
    reports = [
        report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])
    ]
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == "conformance" and report.when == "call":
                terminalreporter.write_line(f"conformance: {value}")
