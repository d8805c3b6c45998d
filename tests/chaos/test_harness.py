"""Tests of the harness: clocks jump, and a verdict finds the faults of hypervisors."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from portclaim.common.rpc.claim_messages import ClaimRequest
from tests.chaos.clock import Clocks, has_compiler
from tests.chaos.cycles import Cycle
from tests.chaos.history import unexplained
from tests.chaos.operators import Drained
from tests.chaos.verdict import ACTIONS, Verdict, may_be_done

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
        ([("one", "prepare", VF), ("one", "attach", VF), ("one", "unplug", VF), ("one", "attach", VF)], ""),
        ([("one", "prepare", VF), ("one", "unplug", VF), ("two", "prepare", VF)], "beside"),
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


@pytest.mark.parametrize(
    ("done", "was_attached", "live_moves", "is_right"),
    [
        ("", False, 0, True),
        ("", True, 0, False),
        ("prepare", False, 0, False),
        ("prepare restore", False, 0, True),
        ("prepare restore", True, 0, False),
        ("prepare attach detach", True, 0, True),
        ("prepare attach detach", False, 0, True),  # the answer came after the release
        ("prepare attach", True, 0, False),
        ("prepare attach attach detach", True, 1, False),
        ("prepare attach detach detach", True, 1, False),
        ("prepare attach unplug restore", True, 1, True),
        ("prepare attach unplug restore", True, 0, False),
        ("prepare attach unplug attach detach", True, 1, True),
        ("prepare attach unplug detach", True, 1, False),
        ("prepare attach restore prepare attach detach", True, 1, False),
    ],
)
def test_a_verdict_counts_what_a_hypervisor_did_with_a_device(
    done: str, was_attached: bool, live_moves: int, is_right: bool
) -> None:
    counted = {action: done.split().count(action) for action in ACTIONS}
    assert may_be_done(counted, was_attached, live_moves) is is_right


@pytest.mark.parametrize(
    ("statuses", "is_right"),
    [
        ("claimed prepared allocated releasing released", True),
        ("claimed released", True),
        ("claimed allocated prepared", False),
        ("allocated claimed", False),
        ("claimed failed", False),
        ("live: allocated prepared allocated prepared releasing released", True),
        ("live: allocated prepared claimed", False),
        ("live: releasing prepared", False),
        ("aborted: claimed prepared failed", True),
        ("aborted: prepared failed releasing", False),
        ("aborted: allocated failed", False),
    ],
)
def test_a_client_finds_statuses_in_the_wrong_order(statuses: str, is_right: bool) -> None:
    kind, _, listed = statuses.rpartition(": ")
    request = ClaimRequest(claim_id=UUID(int=1), instance_id=UUID(int=2), extra_specs={"a": "b"})
    cycle = Cycle("vf", "host", request, waits_for_attach=True, live_moves=kind == "live")
    cycle.may_fail = kind == "aborted"
    for status in listed.split():
        cycle.note(SimpleNamespace(claim_id=request.claim_id, host="host", devices=[], status=status))  # type: ignore[arg-type]
    assert (cycle.wrong == []) is is_right


def served(called: float, answered: float, may_end_from: float, ended_by: float, *devices: str) -> Cycle:
    """A claim on the host that has ended."""
    request = ClaimRequest(claim_id=UUID(int=1), instance_id=UUID(int=2), extra_specs={"a": "b"})
    cycle = Cycle("vf", "host", request, waits_for_attach=True, devices=frozenset(devices))
    cycle.first_called, cycle.answered = called, answered
    cycle.may_end_from, cycle.ended_by = may_end_from, ended_by
    return cycle


@pytest.mark.parametrize(
    ("others", "is_right"),
    [
        ([(4.0, 5.0, 6.0, 7.0, f"host {VF}")], True),  # after it
        ([(2.5, 5.0, 6.0, 7.0, f"host {VF}")], True),  # perhaps after it
        ([(0.5, 1.5, 1.6, 1.8, f"host {VF}")], False),
        ([(0.5, 1.5, 1.6, 1.8, f"host {PF}")], False),
        ([(2.5, 3.5, 4.0, 5.0, f"host {PF}"), (2.6, 3.6, 4.1, 5.1, f"host {VF}")], False),
    ],
)
def test_a_solver_finds_claims_that_had_a_device_at_once(
    others: list[tuple[float, float, float, float, str]], is_right: bool
) -> None:
    """The first claim has the VF from 1 s at the latest until 2 s at least, and until 3 s at most."""
    history = [served(0.0, 1.0, 2.0, 3.0, f"host {VF}"), *(served(*other) for other in others)]
    parents = {("host", PF): None, ("host", VF): ("host", PF)}
    assert (unexplained(history, parents) == []) is is_right


def test_a_drained_port_must_not_get_a_claim() -> None:
    drained = Drained("host", frozenset({f"host {PF}", f"host {VF}"}), since=1.0, until=2.0)
    assert drained.forbids(served(1.2, 1.8, 3.0, 4.0, f"host {VF}"))
    assert not drained.forbids(served(0.8, 1.8, 3.0, 4.0, f"host {VF}"))  # perhaps before the drain
    assert not drained.forbids(served(1.2, 2.2, 3.0, 4.0, f"host {VF}"))  # perhaps after it
    assert not drained.forbids(served(1.2, 1.8, 3.0, 4.0, "host 0000:82:00.0"))
