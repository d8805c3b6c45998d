"""Real servers, each started once per test run by the first worker that needs it, and shared by all.

The run belongs to pytest's first process, the controller: the servers live as long as it does and are stopped
at its end. What a worker must know to use a server that another one started is in a file of the run's
directory.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import pytest

from portclaim.cli.supervisor import SupervisedProcess, supervise

RUN = "PORTCLAIM_TEST_RUN"  # the environment variable by which the controller tells its workers the directory
MISSING = "engine missing: "


def begin_run() -> None:
    """Make the run's directory, which goes with the run. For the controller, before there are workers."""
    run = Path(tempfile.mkdtemp(prefix="portclaim-test-"))
    (run / "owner").write_text(str(os.getpid()))
    process = supervise(
        "sh", "-c", "echo here; exec sleep infinity", ready="here", log=run / "log", directory=run
    )
    (run / "~run.json").write_text(json.dumps({"processes": [asdict(process)]}))  # "~": stopped last
    os.environ[RUN] = str(run)


def end_run() -> None:
    """Stop all servers of the run, and wait until nothing of them is left."""
    run = Path(os.environ.pop(RUN))
    for started in sorted(run.glob("*.json")):
        for process in json.loads(started.read_text())["processes"]:
            SupervisedProcess(**process).stop()


def shared(
    name: str, start: Callable[[int], tuple[Sequence[SupervisedProcess], dict[str, Any]]]
) -> dict[str, Any]:
    """What `start` told about the server `name` in this run; it is called if no worker has called it yet.

    `start` gets the process id that the server must not outlive. It answers the processes to stop at the end
    of the run, and JSON values: where the server is found.
    """
    run = Path(os.environ[RUN])
    told = run / f"{name}.json"
    with (run / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            processes, facts = start(run_owner())
            told.write_text(json.dumps({"processes": [asdict(each) for each in processes], "facts": facts}))
    facts = json.loads(told.read_text())["facts"]
    return dict(facts)


def run_owner() -> int:
    """The process that the run belongs to, and that nothing started for a test may outlive."""
    return int((Path(os.environ[RUN]) / "owner").read_text())


def skip_without(engine: str, remedy: str) -> NoReturn:
    """Skip the test that asks, and have the run say so in one line at its very end (`missing_engines`)."""
    pytest.skip(f"{MISSING}{engine} ({remedy})")


def missing_engines(skipped: Sequence[pytest.TestReport]) -> list[str]:
    """One line for each engine that was missing, with the number of tests that did not run for it."""
    reasons = [str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)]
    found = [reason.partition(MISSING)[2] for reason in reasons if MISSING in reason]
    return [f"NOT TESTED: {found.count(what)} tests need {what}" for what in sorted(set(found))]
