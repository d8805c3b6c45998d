"""``portclaim wait``, and a claim with ``--attach on-call`` from its beginning to its end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args
from uuid import uuid4

import pytest

from portclaim.cli.wait import GOALS
from portclaim.common.events.wait import Goal
from portclaim.common.rpc.claim_messages import Claim
from tests.support.bus import Bus
from tests.support.concurrency import LONG, wait_until
from tests.support.fleet import ALIASES, Fleet, Host
from tests.support.services import Services
from tests.support.waiters import answer, queues_of_waiters

PROGRAM = Path(sys.executable).with_name("portclaim")


@pytest.fixture(autouse=True)
def host(fleet: Fleet) -> Host:
    """Eight ports with eight VFs each."""
    return fleet.host("h1", ports=8, vfs=8)


def test_the_goals_are_those_of_the_library() -> None:
    assert get_args(Goal) == GOALS


@pytest.fixture
def start(service_process: Services) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the program. A scheduler and a conductor run."""
    service_process("conductor")
    service_process("scheduler", {"pci": {"alias": ALIASES}})
    bus = {"OS_DEFAULT__TRANSPORT_URL": service_process.transport_url}
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        command, environment = [str(PROGRAM), *words], os.environ | bus
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_from_a_claim_with_attach_on_call_to_its_end(
    fleet: Fleet, host: Host, bus: Bus, start: Callable[..., subprocess.Popen[str]]
) -> None:
    words = ("claim", "--alias", "nic-vf:1", "--attach", "on-call", "--guest-within", "7200")
    claim = Claim.model_validate_json(ended(start(*words, "--output", "json")))
    assert claim.attach == "on-call"
    assert fleet.sql("SELECT request ->> 'guest_within' FROM claims") == [("7200",)]
    claim_id = str(claim.claim_id)

    prepared = start("wait", claim_id, "--for", "prepared", "--output", "json")
    answer(bus, host, claim, "prepared")
    assert json.loads(ended(prepared))["status"] == "prepared"

    called = Claim.model_validate_json(ended(start("attach", claim_id, "--output", "json")))
    assert (called.attach, called.step) == ("auto", 2)
    allocated = start("wait", claim_id)
    answer(bus, host, called, "done")
    assert "status allocated" in ended(allocated)

    released = fleet.release(claim)
    answer(bus, host, released, "done")
    assert "status released" in ended(start("wait", claim_id, "--for", "ended"))


def test_it_ends_with_status_1_and_the_reason(
    fleet: Fleet, host: Host, start: Callable[..., subprocess.Popen[str]]
) -> None:
    claim = fleet.claim("nic-vf:1")
    late = start("wait", str(claim.claim_id), "--timeout", "0.2")
    assert_failed(late, f"portclaim: after 0.2 s claim {claim.claim_id} is claimed, not allocated")
    waits = start("wait", str(claim.claim_id), "--for", "prepared")
    host.failed(claim, "the driver is in use")
    assert_failed(waits, "is failed and will not be prepared: the driver is in use")
    assert_failed(start("wait", str(uuid4())), "there is no claim")


def test_a_terminal_shows_the_status_of_the_claim_meanwhile(
    fleet: Fleet, host: Host, bus: Bus, start: Callable[..., subprocess.Popen[str]]
) -> None:
    claim = fleet.claim("nic-vf:1")
    terminal, stderr = os.openpty()
    waits = start("wait", str(claim.claim_id), "--for", "prepared", stderr=stderr)
    shown = ""
    while f"claim {claim.claim_id} is claimed" not in shown:
        shown += os.read(terminal, 1000).decode()
    answer(bus, host, claim, "prepared")
    assert "status prepared" in waits.communicate(timeout=LONG)[0]
    os.close(stderr)
    os.close(terminal)


def test_an_interruption_ends_it_without_a_message(
    fleet: Fleet, rabbit_url: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    waits = start("wait", str(fleet.claim("nic-vf:1").claim_id))
    wait_until(lambda: queues_of_waiters(rabbit_url.rpartition("/")[2]) == 1, "it waits")
    waits.send_signal(signal.SIGINT)
    assert waits.communicate(timeout=LONG) == ("", "")
    assert waits.returncode == 130


def ended(process: subprocess.Popen[str]) -> str:
    """What it has printed. It must have succeeded."""
    said, error = process.communicate(timeout=LONG)
    assert (process.returncode, error) == (0, "")
    return said


def assert_failed(process: subprocess.Popen[str], words: str) -> None:
    """It ended with status 1 and printed these words on standard error, and nothing else."""
    said, error = process.communicate(timeout=LONG)
    assert (process.returncode, said) == (1, "")
    assert words in error
    assert "Traceback" not in error
