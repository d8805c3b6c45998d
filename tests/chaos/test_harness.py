"""Tests of the harness: clocks jump, and a verdict finds the faults of hypervisors."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.clock import Clocks, has_compiler
from tests.chaos.verdict import Verdict

TELL_TIME = "import time\nwhile input() == 'now': print(time.time(), flush=True)"
PF, VF = "0000:81:00.0", "0000:81:02.0"


@pytest.mark.skipif(not has_compiler(), reason="there is no C compiler (cc)")
def test_a_clock_can_be_set_while_its_service_runs(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path / "clocks")
    command, environment = [sys.executable, "-c", TELL_TIME], clocks.environment("service")
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdin
        assert service.stdout
        for ahead in (0, 3600, -3600, 0):
            clocks.set("service", ahead)
            service.stdin.write("now\n")
            service.stdin.flush()
            assert abs(float(service.stdout.readline()) - time.time() - ahead) < 600
        service.stdin.write("enough\n")


def site(effects: list[tuple[str, str, str]]) -> Any:
    """One host with a PF and its VF. ``effects`` of its hypervisor: claim, action, address."""

    def records(query: str, hosts: list[str], *_facts: object) -> dict[str, list[tuple[Any, ...]]]:
        rows = [(number, *effect) for number, effect in enumerate(effects)] if "effects" in query else []
        return dict.fromkeys(hosts, rows)

    def ask(query: str) -> list[tuple[str, ...]]:
        return [("host", VF, PF)] if "pf.address" in query else [("now",)]

    return SimpleNamespace(hosts=["host"], records=records, postgresql=SimpleNamespace(ask=ask))


@pytest.mark.parametrize(
    ("effects", "wrong"),
    [
        ([("one", "prepare", VF), ("one", "attach", VF), ("one", "detach", VF), ("two", "prepare", PF)], ""),
        ([("one", "prepare", VF), ("one", "restore", VF), ("two", "prepare", PF)], ""),
        ([("one", "prepare", VF), ("two", "prepare", VF)], "beside"),
        ([("one", "prepare", VF), ("two", "prepare", PF)], "beside"),
        ([("one", "prepare", PF), ("two", "prepare", VF)], "beside"),
        ([("one", "prepare", PF), ("two", "attach", PF)], "which did not have it"),
        ([("one", "prepare", PF), ("two", "detach", PF)], "which did not have it"),
        ([("one", "prepare", PF), ("one", "detach", PF), ("one", "attach", PF)], "which did not have it"),
        ([("one", "detach", PF)], "which did not have it"),
    ],
)
def test_a_verdict_finds_impossible_attaches_and_detaches(
    effects: list[tuple[str, str, str]], wrong: str
) -> None:
    found = Verdict(site(effects))._follow_hypervisors(["host"])
    assert len(found) == bool(wrong)
    assert all(wrong in each for each in found)
