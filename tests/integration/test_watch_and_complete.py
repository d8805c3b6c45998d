"""``--watch`` shows an answer again when an event comes; a shell completes names that the service has."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.test_cli import PROGRAM
from tests.integration.test_describe import api
from tests.support.fleet import Fleet
from tests.support.http_api import HttpApi
from tests.support.rabbitmq import free_ports

__all__ = ["api"]


@pytest.fixture
def there(api: HttpApi, fleet: Fleet) -> dict[str, str]:
    """Where the service is: a fleet of one host with two ports of two VFs, over HTTP."""
    fleet.host("h1", ports=2, vfs=2)
    return {"PORTCLAIM_URL": api.url, "PORTCLAIM_TOKEN": api.token("operator")}


@contextmanager
def watching(there: dict[str, str], *words: str) -> Iterator[Iterator[str]]:
    """The lines that the program prints while it runs."""
    process = subprocess.Popen(
        [str(PROGRAM), *words, "--watch", "300"],
        env=os.environ | there | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield iter(process.stdout)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_an_event_shows_the_list_again(there: dict[str, str], fleet: Fleet) -> None:
    """Without the event, the second answer would come after 300 seconds."""
    first = fleet.claim("nic-vf:1")
    with watching(there, "claim", "list") as lines:
        assert next(lines).startswith("claim ")
        assert str(first.claim_id) in next(lines)
        with changing(fleet):
            assert any(line.startswith("claim ") for line in lines)


@contextmanager
def changing(fleet: Fleet) -> Iterator[None]:
    """Claims come and go in the block: the program follows events from some moment on."""
    ending = threading.Event()

    def change() -> None:
        while not ending.wait(0.2):
            fleet.leave(fleet.claim("nic-pf:9", wait=60))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def complete(there: dict[str, str], words: str) -> list[str]:
    """What bash would offer for the last word, which may be empty."""
    typed = words.split(" ")
    asked = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(typed) - 1),
        "_PORTCLAIM_COMPLETE": "bash_complete",
    }
    found = subprocess.run(
        [str(PROGRAM)], env=os.environ | there | asked, capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stderr == ""
    return [line.partition(",")[2] for line in found.stdout.splitlines() if line]


def test_names_are_completed_that_the_service_has(there: dict[str, str], fleet: Fleet) -> None:
    claim = fleet.claim("nic-vf:1")
    assert complete(there, "portclaim describe host ") == ["h1"]
    assert complete(there, "portclaim describe host x") == []
    assert complete(there, "portclaim release ") == [str(claim.claim_id)]
    assert "nic-vf:" in complete(there, "portclaim claim --alias ni")
    assert "gpu:1,nic-vf:" not in complete(there, "portclaim claim --alias ni")
    assert "nic-pf:1,nic-vf:" in complete(there, "portclaim claim --alias nic-pf:1,ni")
    assert len(complete(there, "portclaim describe port h1 ")) == 6


def test_a_service_that_is_away_completes_nothing_and_says_nothing(there: dict[str, str]) -> None:
    [port] = free_ports(1)
    away = there | {"PORTCLAIM_URL": f"http://127.0.0.1:{port}"}
    assert complete(away, "portclaim describe host ") == []
    assert complete(away | {"PORTCLAIM_TOKEN": "wrong"}, "portclaim describe host ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_own_script(shell: str) -> None:
    said = subprocess.run(
        [str(PROGRAM), "completion", shell], capture_output=True, text=True, check=True, timeout=60
    )
    assert f"{shell}_complete" in said.stdout
