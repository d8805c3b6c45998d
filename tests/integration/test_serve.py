"""``portclaim serve`` keeps its data, ends whole, and starts again after whatever ended it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args
from uuid import uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from portclaim.cli.serve import _PORT
from portclaim.cli.tokens import ROLES
from portclaim.common.db.tokens import Role
from portclaim.services.api.options import OPTIONS
from tests.support.concurrency import wait_until
from tests.support.http_api import asked
from tests.support.served import PROGRAM, Served, directory_of_one

STOP = 10.0  # seconds; a second or two on a machine that does nothing else
START = 240.0


Serve = Callable[..., Served]


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_of_one() as place:
        yield place


@pytest.fixture
def serve(directory: Path) -> Iterator[Serve]:
    """Starts ``portclaim serve`` on one directory."""
    started: list[Served] = []

    def start(*words: str, options: Sequence[str] = ()) -> Served:
        started.append(Served(directory, *words, options=options))
        return started[-1]

    yield start
    for each in started:
        if each.status is None:
            each.status = each.process.stop()


def until_gone(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([process], [], [], 60)[0], f"process {pid} still runs"
    os.close(process)


def allocated(client: httpx.Client) -> str:
    """A claim that is allocated."""
    claim_id = str(uuid4())
    made = client.put(f"/v1/claims/{claim_id}", json=asked("nic-vf:2"))
    assert made.status_code == 200, made.text
    shown = client.get(f"/v1/claims/{claim_id}", params={"wait_for": "allocated", "timeout": 60})
    assert shown.json()["status"] == "allocated"
    return claim_id


def released(client: httpx.Client, claim_id: str) -> None:
    client.delete(f"/v1/claims/{claim_id}")
    shown = client.get(f"/v1/claims/{claim_id}", params={"wait_for": "ended", "timeout": 60})
    assert shown.json()["status"] == "released"


def test_what_was_claimed_is_there_after_a_stop_and_after_a_kill(serve: Serve) -> None:
    first = serve("--simulate", "2")
    assert "sim-1, sim-2" in first.said
    with first.client() as client:
        claim_id = allocated(client)
    server = first.postmaster
    assert first.end() < STOP
    assert first.status == 0
    assert f"Stopped. The data stay in {first.directory}." in first.log.read_text()
    until_gone(server)

    second = serve()
    assert "sim-1, sim-2" in second.said, "hosts of earlier starts are there again"
    assert second.token is None, "the operator's token is shown once"
    with second.client(first.token) as client:
        assert client.get(f"/v1/claims/{claim_id}").json()["status"] == "allocated"
        another = allocated(client)
    second.end(signal.SIGKILL)

    third = serve()
    with third.client(first.token) as client:
        for each in (claim_id, another):
            released(client, each)
        assert all(host["vfs_held"] == 0 for host in client.get("/v1/hosts").json()["hosts"])
    assert third.end(signal.SIGTERM) < STOP


def test_a_start_ends_the_servers_of_one_whose_whole_process_tree_was_cut_off(serve: Serve) -> None:
    first = serve("--simulate", "1")
    server = first.postmaster
    supervisor = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    first.end(signal.SIGKILL)
    assert Path(f"/proc/{server}").exists()
    sockets = Path((first.directory / "postgresql/data/postmaster.pid").read_text().splitlines()[4])
    assert sockets.exists()

    second = serve()
    until_gone(server)
    assert not sockets.exists()
    with second.client(first.token) as client:
        released(client, allocated(client))


def test_a_number_in_the_file_of_a_server_that_is_another_process_now_is_no_hindrance(serve: Serve) -> None:
    first = serve()
    first.end()
    stale = first.directory / "postgresql/data/postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{stale.parent}\n1700000000\n5432\n/tmp\n\n  123456 7\n")
    with serve().client(first.token) as client:
        assert client.get("/readyz").json()["status"] == "ok"


def test_a_first_start_that_is_killed_does_not_hinder_the_next(serve: Serve, directory: Path) -> None:
    data = directory / "postgresql"
    (data / "data.partial").mkdir(parents=True)
    (data / "data.partial/PG_VERSION").write_text("18\n")
    with serve().client() as client:
        assert client.get("/readyz").json()["status"] == "ok"


def test_two_do_not_share_a_directory(serve: Serve) -> None:
    first = serve()
    command = [str(PROGRAM), "serve", "--data", str(first.directory), "--port", "0"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=START, check=False)
    assert second.returncode == 1
    [line] = second.stderr.splitlines()  # and not the other one's log
    assert line.startswith("portclaim serve: another portclaim serve has its data in")
    with first.client() as client:
        assert client.get("/readyz").json()["status"] == "ok"


def test_a_port_that_is_taken_is_said_and_nothing_is_left(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [str(PROGRAM), "serve", "--data", str(directory), "--port", port]
        failed = subprocess.run(command, capture_output=True, text=True, timeout=START, check=False)
    assert failed.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in failed.stderr
    assert not (directory / "postgresql/data/postmaster.pid").exists()


def test_the_end_of_the_database_ends_it_with_a_reason(serve: Serve) -> None:
    served = serve()
    os.kill(served.postmaster, signal.SIGKILL)
    served.status = served.process.wait()
    assert served.status == 1
    assert "PostgreSQL has ended by itself" in served.log.read_text()


def test_the_page_is_opened_with_a_token_that_no_argument_shows(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" >{opened}.new && mv {opened}.new {opened}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    served = serve("--open")
    assert f"{served.url}/#token={served.token}" in served.said
    wait_until(opened.exists, "the browser is started")
    file = Path(opened.read_text().strip().removeprefix("file://"))
    assert file.stat().st_mode & 0o777 == 0o600
    [token] = re.findall(rf"url={served.url}/#token=(\S+)\"", file.read_text())
    with served.client(token) as client:
        assert client.get("/v1/token").json()["role"] == "operator"
        assert "Portclaim" in client.get("/").text


def test_load_claims_and_releases(serve: Serve) -> None:
    served = serve("--simulate", "1", "--load")
    with served.client() as client, client.stream("GET", "/v1/events", params={"after": 0}) as stream:
        seen: set[str] = set()
        for line in stream.iter_lines():
            seen |= set(re.findall(r'"to_status" : "(\w+)"', line))
            if {"claimed", "allocated", "released"} <= seen:
                break
        assert client.get("/v1/claims", params={"project": "load"}).status_code == 200


def test_the_command_line_speaks_http(serve: Serve) -> None:
    served = serve("--simulate", "1")
    here = {"PORTCLAIM_URL": served.url, "PORTCLAIM_TOKEN": served.token or ""}

    def portclaim(*words: str) -> str:
        done = subprocess.run(
            [str(PROGRAM), *words],
            env=os.environ | here,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = portclaim("claim", "--alias", "nic-vf:2", "--output", "json")
    claim_id = re.findall(r'"claim_id": "([^"]+)"', made)[0]
    assert "allocated" in portclaim("wait", claim_id, "--timeout", "60")
    assert "allocated" in portclaim("tree")
    assert claim_id in portclaim("claim", "list", "--host", "sim-1")
    assert "sim-1" in portclaim("candidates", "--alias", "nic-pf:1")
    assert "would be served" in portclaim("explain", "--alias", "nic-pf:1")
    assert "hosts are up" in portclaim("doctor")
    assert "nic-vf" in portclaim("alias", "list")
    assert "sim-1" in portclaim("host", "list")
    portclaim("host", "drain", "sim-1", "--reason", "new cable")
    assert "new cable" in portclaim("host", "list")
    portclaim("host", "undrain", "sim-1")
    portclaim("release", claim_id)
    portclaim("wait", claim_id, "--for", "ended", "--timeout", "60")
    token = portclaim("token", "create", "--name", "web", "--role", "claimer", "--project", "web").strip()
    assert "web" in portclaim("token", "list")
    here["PORTCLAIM_TOKEN"] = token
    assert "claim_id" in portclaim("claim", "--alias", "nic-vf:1", "--output", "json")
    config = str(served.directory / "portclaim.conf")
    here.clear()
    assert wrong_for_the_doctor(config) == {"roles"}
    portclaim("--config-file", config, "token", "revoke", "web")
    assert "web" not in portclaim("--config-file", config, "token", "list")


def wrong_for_the_doctor(config: str) -> set[str]:
    """What the doctor warns of, in another process than the bus, with the file that the start has written."""
    command = [str(PROGRAM), "--config-file", config, "doctor", "--quiet", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout + done.stderr  # it is a warning
    return {each["check"] for each in json.loads(done.stdout)}


def test_the_command_line_knows_the_port_and_the_roles() -> None:
    assert get_args(Role) == ROLES
    assert {option.name: option.default for option in OPTIONS}["port"] == _PORT


def test_prometheus_is_answered_for_all_services_together(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "metrics.conf"
    alias = '{"name": "nic-vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}'
    file.write_text(
        f"[metrics]\nlisten = 127.0.0.1\nscheduler_port = 0\nfleet_interval = 1\n[pci]\nalias = {alias}\n"
    )
    served = serve("--simulate", "1", options=("--config-file", str(file)))
    found = re.search(r"Prometheus is answered at (\S+)\.", served.said)
    assert found, served.said
    with served.client() as client:
        allocated(client)

    def numbers() -> dict[str, float]:
        text = httpx.get(found[1]).raise_for_status().text
        families = text_string_to_metric_families(text)
        return {sample.name: sample.value for family in families for sample in family.samples}

    wanted = {
        "portclaim_claims_total",
        "portclaim_step_answers_total",
        "portclaim_step_seconds_count",
        "portclaim_http_requests_total",
        "portclaim_fleet_devices",
        "portclaim_workers",
    }
    wait_until(lambda: wanted <= numbers().keys(), "all services have counted")


def test_the_simulated_driver_is_refused_for_this_machines_devices(directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.conf"
    file.write_text('[pci]\ndevice_spec = {"vendor_id": "ffff"}\n')
    command = [PROGRAM, "--config-file", file, "serve", "--data", directory, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "set driver to libvirt or vfio" in done.stderr
