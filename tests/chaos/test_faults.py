"""A short campaign: each fault once or twice. `make chaos` injects a thousand; see docs/reliability.md."""

import json
import sys
from typing import Any

import pytest

from portclaim.cli.supervisor import supervise
from tests.chaos.deck import SHARES
from tests.support.engines import run_owner, skip_without
from tests.support.rabbitmq import find_server

SHORT = ["--faults=18", "--seed=6", "--minutes=3", "--clients=3", "--hosts=3", "--cut=7"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a short campaign, for each fault."""
    if find_server() is None:
        skip_without("RabbitMQ", "as root: apt-get install rabbitmq-server")
    directory = tmp_path_factory.mktemp("chaos")
    log, results = directory / "log", directory / "results.json"
    command = [sys.executable, "-m", "tests.chaos", *SHORT, f"--results={results}"]
    assert supervise(*command, ready="begins", log=log, owner=run_owner()).wait() == 0, log.read_text()
    return {row["fault"]: row for row in json.loads(results.read_text())["faults"]}


@pytest.mark.parametrize("fault", [kind.name for kind in SHARES])
def test_portclaim_recovers_from_the_fault(rows: dict[str, Any], fault: str) -> None:
    """After the fault nothing is wrong, and all clients have finished claims of both kinds."""
    row = rows[fault]
    if row["skipped"]:
        pytest.skip(row["skipped"])
    if not row["injected"]:
        pytest.skip("this machine is too slow to get to it in time")
    assert row["wrong"] == []
    assert row["worst_recovery_s"] is not None
