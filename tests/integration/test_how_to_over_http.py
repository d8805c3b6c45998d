"""The how-to guides, played over HTTP: their commands do what they say where only the API is reached."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from portclaim.common.db import tokens
from portclaim.common.rpc.operator_messages import HostFilter
from tests.support.bus import Bus
from tests.support.concurrency import wait_until
from tests.support.fleet import Fleet
from tests.support.rabbitmq import free_ports
from tests.support.readme import ROOT
from tests.support.services import Services

HOW_TO = ROOT / "docs/how-to"
HOSTS = ("compute-7", "compute-8")
CLAIM = "6f1b4f6e-52b5-4e0f-9d0a-1c3f4f2b7a10"
PROGRAM = str(Path(sys.executable).with_name("portclaim"))

# What a guide shows as another way, or for another place than this.
NOT_PLAYED = (
    "move begin 6f1b4f6e-52b5-4e0f-9d0a-1c3f4f2b7a10 --to-claim 9d2c7c0e-3f0b-4a53-8a55-2b1f0f6f5d11 --live",
    "move revert",
    "release 0f6d2c1e",
    "serve",
    "--config-file",
)

Run = Callable[..., str]


def commands(page: str) -> list[list[str]]:
    """The command lines of ``portclaim`` in the blocks of a page, without its name, in their order."""
    text = "".join(re.findall(r"```sh\n(.*?)```", (HOW_TO / page).read_text(), re.DOTALL))
    lines = re.findall(r"^portclaim (.+)$", text.replace("\\\n", ""), re.MULTILINE)
    return [shlex.split(line) for line in lines if not line.startswith(NOT_PLAYED)]


@pytest.fixture
def environment(service_process: Services, bus: Bus, fleet: Fleet, tmp_path: Path) -> dict[str, str]:
    """The variables that name an API and an operator's token, on services with two simulated hosts."""
    [port] = free_ports(1)
    configuration = ("--config-file", str(ROOT / "deploy/portclaim.conf"))
    service_process("conductor")
    service_process("scheduler", None, *configuration)
    for host in HOSTS:
        own: dict[str, dict[str, object]] = {
            "DEFAULT": {"host": host},
            "compute_agent": {"sysfs_root": tmp_path / f"sys-{host}"},
        }
        own["simulated"] = {"numa_nodes": 2}
        service_process("compute_agent", own, *configuration)
    service_process("api", {"api": {"port": port}})
    with fleet.engine.begin() as connection:
        token = tokens.create(connection, "ann", "operator", None)
    wait_until(lambda: len(bus.scheduler.hosts(HostFilter()).hosts) == len(HOSTS), "both hosts have reported")
    return {**os.environ, "PORTCLAIM_URL": f"http://127.0.0.1:{port}", "PORTCLAIM_TOKEN": token}


@pytest.fixture
def portclaim(environment: dict[str, str]) -> Run:
    """Runs a command, which must succeed; answers what it prints."""

    def run(*words: str) -> str:
        done = subprocess.run(
            [PROGRAM, *words], env=environment, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    return run


def test_choose_a_host(portclaim: Run) -> None:
    portclaim("claim", "--alias", "nic-vf:1", "--host", "compute-7", "--claim-id", CLAIM)
    candidates, on_compute_7, apart = [portclaim(*words) for words in commands("choose-a-host.md")]
    assert "compute-7" in candidates
    assert "compute-7" in on_compute_7
    assert "compute-8" in apart


def test_drain_a_host(portclaim: Run) -> None:
    portclaim("claim", "--alias", "nic-vf:1", "--host", "compute-7", "--claim-id", CLAIM)
    portclaim("wait", CLAIM, "--timeout", "60")
    said = [portclaim(*words) for words in commands("drain-a-host.md")]
    assert said[0].startswith("compute-7 takes no new claims")
    assert said[-1].startswith("compute-7 takes claims again")
    assert portclaim("wait", CLAIM, "--for", "ended", "--timeout", "60")
    assert "complete-move" in portclaim("audit", "list")


def test_run_it_on_one_machine(portclaim: Run) -> None:
    for words in commands("serve.md"):
        portclaim(*words)
    assert "revoke-token" in portclaim("audit", "list", "--who", "ann")


def test_the_same_with_curl(environment: dict[str, str]) -> None:
    if missing := [program for program in ("curl", "bash") if shutil.which(program) is None]:
        pytest.skip(f"{missing[0]} is not installed")
    [block] = re.findall(r"```sh\n(claim=.*?)```", (HOW_TO / "serve.md").read_text(), re.DOTALL)
    ends = block.replace("/v1/events?after=0", "/v1/events?after=0&until=1")
    strictly = 'curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
    strictly += f"uuidgen() {{ {sys.executable} -c 'import uuid; print(uuid.uuid4())'; }}\n"
    done = subprocess.run(
        ["bash", "-euc", strictly + ends],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":"allocated"' in done.stdout
    assert '"status":"releasing"' in done.stdout
