"""OpenStack Placement under uWSGI, with two processes, on a database of the same PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

from bench.machine import PEERS
from portclaim.cli.supervisor import supervise
from tests.support.rabbitmq import free_ports

WORKERS = 2
"""Processes: as many as a service of Portclaim has."""

VERSION = "placement 1.39"
HEADERS = {
    "X-Auth-Token": "admin",
    "OpenStack-API-Version": VERSION,
    "Content-Type": "application/json",
    "Accept": "application/json",
}
CONFIGURATION = """\
[DEFAULT]
log_options = false
[api]
auth_strategy = noauth2
[placement_database]
connection = {url}
[placement]
# Else all clients are offered the same candidate, and all but one of them must ask again.
randomize_allocation_candidates = true
{more}
"""
DEFAULT = ""
BOUNDED = "max_allocation_candidates = 1000\nallocation_candidates_generation_strategy = breadth-first"
"""What its documentation recommends for wide trees; the number is the one that Nova asks for."""


class Running(NamedTuple):
    """``port``: where it listens; ``pid``: of the process that its workers descend from."""

    port: int
    pid: int


def sync(url: str) -> None:
    """Make Placement's tables in an empty database."""
    with tempfile.TemporaryDirectory() as directory:
        environment = _configure(Path(directory), url, DEFAULT)
        subprocess.run(
            [PEERS.with_name("placement-manage"), "db", "sync"],
            env=environment,
            check=True,
            capture_output=True,
        )


@contextmanager
def placement(url: str, more: str = BOUNDED) -> Iterator[Running]:
    """Up for the length of a ``with`` block. ``more``: lines for its section [placement]."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        environment = _configure(directory, url, more)
        [port] = free_ports(1)
        process = supervise(
            *(PEERS.with_name("uwsgi"), "--master", "--need-app", "--lazy-apps", "--enable-threads"),
            *("--die-on-term", "--disable-logging", "--buffer-size=65535", "--listen=100"),
            *(f"--http-socket=127.0.0.1:{port}", f"--processes={WORKERS}", "--module=placement.wsgi.api"),
            ready="WSGI app 0 .* ready",
            log=directory / "uwsgi.log",
            environment=environment,
            owner=os.getpid(),
        )
        try:
            yield Running(port, process.pid)
        finally:
            process.stop()


def call(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """One request on a connection of its own; the status, and what the answer says."""
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), HEADERS)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(text) if text else None


def _configure(directory: Path, url: str, more: str) -> dict[str, str]:
    """Write its configuration; answers the environment that it needs."""
    (directory / "placement.conf").write_text(CONFIGURATION.format(url=url, more=more))
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "OS_PLACEMENT_CONFIG_DIR": str(directory),
        "PYTHONWARNINGS": "ignore",
    }
