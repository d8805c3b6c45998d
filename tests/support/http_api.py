"""The HTTP API on a fleet: a real web server and real HTTP, only the bus behind it is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx

from portclaim.cli.http_client import HttpScheduler
from portclaim.common.db import tokens
from portclaim.common.db.tokens import Role
from portclaim.services.api import options
from portclaim.services.api.app import create_app
from portclaim.services.api.backend import Backend, connect
from portclaim.services.api.keystone import KeystoneTokens
from portclaim.services.api.server import Server, listen
from tests.support.fleet import Fleet

TIMEOUT = 30.0


@dataclass
class HttpApi:
    """A running API."""

    url: str
    port: int
    fleet: Fleet
    backend: Backend
    server: Server

    def token(self, role: Role, project: str | None = None) -> str:
        """A new token."""
        with self.fleet.engine.begin() as connection:
            return tokens.create(connection, f"{role}-{uuid4()}", role, project)

    def client(self, role: Role = "operator", project: str | None = None) -> httpx.Client:
        """A client with a token of its own."""
        headers = {"Authorization": f"Bearer {self.token(role, project)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT)


@contextmanager
def http_api(
    fleet: Fleet, database_url: str, keystone: KeystoneTokens | None = None, **settings: Any
) -> Iterator[HttpApi]:
    """The API until the end of the block. ``settings`` are options of ``[api]``."""
    api = SimpleNamespace(**{option.dest: option.default for option in options.OPTIONS} | settings)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    backend = Backend(fleet.scheduler, connect(database_url, 20), api, keystone=keystone)
    server = Server(create_app(backend), backend, listener)
    server.start()
    try:
        yield HttpApi(f"http://127.0.0.1:{port}", port, fleet, backend, server)
    finally:
        server.stop()
        backend.close()


@contextmanager
def called_over_http(fleet: Fleet, database_url: str) -> Iterator[Fleet]:
    """The same fleet, whose callers speak HTTP until the end of the block. All else is as it was."""
    by_rpc = fleet.scheduler
    with http_api(fleet, database_url) as api:
        fleet.scheduler = HttpScheduler(api.url, api.token("operator"))  # type: ignore[assignment]
        try:
            yield fleet
        finally:
            fleet.scheduler = by_rpc


def asked(alias: str = "nic-vf:1", **more: Any) -> dict[str, Any]:
    """The body of a claim for a new instance."""
    return {"instance_id": str(uuid4()), "extra_specs": {"pci_passthrough:alias": alias}, **more}


def problem(answer: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """The body of an answer that must be this problem."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"]) == (status, status), body
    assert body["type"] == f"urn:portclaim:problem:{name}", body
    assert body["detail"]
    return body
