"""Real servers, each started once per test run by the first worker that needs it, and shared by all.

The run belongs to pytest's first process, the controller. The servers are stopped when it ends. A file in the
run's directory says how to use a server that another worker started.
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

RUN = "PORTCLAIM_TEST_RUN"  # environment variable: the run's directory, set by the controller for its workers
MISSING = "engine missing: "


def begin_run() -> None:
    """Make the run's directory. The controller calls this before it starts workers."""
    run = Path(tempfile.mkdtemp(prefix="portclaim-test-"))
    (run / "owner").write_text(str(os.getpid()))
    process = supervise(
        "sh", "-c", "echo here; exec sleep infinity", ready="here", log=run / "log", directory=run
    )
    (run / "~run.json").write_text(json.dumps({"processes": [asdict(process)]}))  # "~": stopped last
    os.environ[RUN] = str(run)


def end_run() -> None:
    """Stop all servers of the run, and wait until they have ended."""
    run = Path(os.environ.pop(RUN))
    for started in sorted(run.glob("*.json")):
        for process in json.loads(started.read_text())["processes"]:
            SupervisedProcess(**process).stop()


def shared(
    name: str, start: Callable[[int], tuple[Sequence[SupervisedProcess], dict[str, Any]]]
) -> dict[str, Any]:
    """The facts about the server `name` of this run. The first worker that asks calls `start`.

    `start` gets the process id of the run's owner. The server must end when that process ends. It returns the
    processes to stop at the end of the run, and facts as JSON values, for example the server's address.
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
    """The process id of the run's owner. Everything that a test starts must end when this process ends."""
    return int((Path(os.environ[RUN]) / "owner").read_text())


def skip_without(engine: str, remedy: str) -> NoReturn:
    """Skip the calling test. The last lines of the run count such tests (`missing_engines`)."""
    pytest.skip(f"{MISSING}{engine} ({remedy})")


def missing_engines(skipped: Sequence[pytest.TestReport]) -> list[str]:
    """A line for each missing engine, with the number of tests that were skipped because of it."""
    reasons = [str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)]
    found = [reason.partition(MISSING)[2] for reason in reasons if MISSING in reason]
    return [f"NOT TESTED: {found.count(what)} tests need {what}" for what in sorted(set(found))]
