"""What every test run has: a directory, real servers on demand, and the truth about what was not tested."""

import signal
from collections.abc import Iterator

import pytest

from tests.support import engines


def pytest_configure(config: pytest.Config) -> None:
    # Whoever runs the tests in the background has them ignore what they send to what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if not hasattr(config, "workerinput"):
        engines.begin_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        engines.end_run()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    yield
    for line in engines.missing_engines(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line, red=True, bold=True)
