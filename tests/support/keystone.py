"""An identity service: OpenStack Keystone itself where it is installed, and a stand-in for it.

The stand-in answers ``/v3/auth/tokens`` as the Identity API v3 describes it. Keystone itself is not installed
with the tests, because it brings a hundred packages: PORTCLAIM_KEYSTONE names the directory of its programs.
"""

from __future__ import annotations

import json
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx

from portclaim.cli.supervisor import supervise
from tests.support.rabbitmq import free_ports

PROGRAMS = Path(os.environ.get("PORTCLAIM_KEYSTONE", "/nonexistent"))
ADMIN = "secret"


class Identity(ABC):
    """A running identity service. ``url`` has no version. ``password``: that of the user ``admin``."""

    url: str
    password = ADMIN

    def options(self) -> dict[str, Any]:
        """The section [keystone_authtoken]: how an API server asks it."""
        return {
            "auth_type": "password",
            "auth_url": f"{self.url}/v3",
            "www_authenticate_uri": self.url,
            "username": "admin",
            "password": self.password,
            "user_domain_name": "Default",
            "project_name": "admin",
            "project_domain_name": "Default",
        }

    @abstractmethod
    def token(self, role: str, project: str | None) -> tuple[str, str | None]:
        """A token of a new user with this role in the project (None: in the system); the project's id."""

    @abstractmethod
    def revoke(self, token: str) -> None:
        """Make a token invalid."""


class StandIn(Identity):
    """Knows tokens and nothing else."""

    def __init__(self, password: str = ADMIN) -> None:
        self.password = password
        self._tokens: dict[str, dict[str, Any]] = {}
        self.asked = 0
        identity = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/v3/auth/tokens":
                    link = {"rel": "self", "href": f"{identity.url}/v3/"}
                    version = {"id": "v3.14", "status": "stable", "links": [link]}
                    several = {"versions": {"values": [version]}}
                    self._answer(200, {"version": version} if self.path.startswith("/v3") else several)
                elif self.headers["X-Auth-Token"] not in identity._tokens:
                    self._answer(401, {"error": {"code": 401}})
                elif found := identity._tokens.get(self.headers["X-Subject-Token"]):
                    identity.asked += 1
                    self._answer(200, {"token": found})
                else:
                    self._answer(404, {"error": {"code": 404}})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if asked["auth"]["identity"]["password"]["user"]["password"] != identity.password:
                    self._answer(401, {"error": {"code": 401, "message": "wrong", "title": "Unauthorized"}})
                    return
                token, _ = identity.token("admin", "admin")
                self._answer(201, {"token": identity._tokens[token]}, {"X-Subject-Token": token})

            def _answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def token(
        self, role: str, project: str | None, *, valid_for: float = 3600.0, **more: Any
    ) -> tuple[str, str | None]:
        domain = {"id": "default", "name": "Default"}
        token, project_id, now = uuid4().hex, uuid4().hex, datetime.now(UTC)
        endpoints = [
            {"id": uuid4().hex, "interface": kind, "region": "one", "region_id": "one", "url": self.url}
            for kind in ("public", "internal", "admin")
        ]
        scope = {"system": {"all": True}}
        if project is not None:
            scope = {"project": {"id": project_id, "name": project, "domain": domain}}  # type: ignore[dict-item]
        self._tokens[token] = {
            "methods": ["password"],
            "user": {"id": uuid4().hex, "name": "ann", "domain": domain, "password_expires_at": None},
            "audit_ids": [uuid4().hex[:22]],
            "issued_at": now.strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
            "expires_at": (now + timedelta(seconds=valid_for)).strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
            "roles": [{"id": uuid4().hex, "name": role}],
            "catalog": [{"id": uuid4().hex, "type": "identity", "name": "keystone", "endpoints": endpoints}],
            **scope,
            **more,
        }
        return token, project_id if project is not None else None

    def revoke(self, token: str) -> None:
        del self._tokens[token]

    @property
    def tokens(self) -> list[str]:
        """All that it has given, also those that a service has for itself."""
        return list(self._tokens)


class Keystone(Identity):
    """Keystone under uWSGI, with SQLite."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        self._http = httpx.Client(base_url=f"{self.url}/v3", timeout=60)
        self._http.headers["X-Auth-Token"] = self._login("admin", ADMIN, scope)

    def token(self, role: str, project: str | None) -> tuple[str, str | None]:
        password = uuid4().hex
        user = self._make("users", name=uuid4().hex, password=password, domain_id="default")
        [role_id] = [each["id"] for each in self._get("roles") if each["name"] == role]
        if project is None:
            self._put(f"system/users/{user['id']}/roles/{role_id}")
            return self._login(user["name"], password, {"system": {"all": True}}), None
        made = self._make("projects", name=project, domain_id="default")
        self._put(f"projects/{made['id']}/users/{user['id']}/roles/{role_id}")
        return self._login(user["name"], password, {"project": {"id": made["id"]}}), made["id"]

    def revoke(self, token: str) -> None:
        self._http.delete("/auth/tokens", headers={"X-Subject-Token": token}).raise_for_status()

    def _login(self, name: str, password: str, scope: dict[str, Any]) -> str:
        user = {"name": name, "password": password, "domain": {"id": "default"}}
        identity = {"methods": ["password"], "password": {"user": user}}
        answer = self._http.post("/auth/tokens", json={"auth": {"identity": identity, "scope": scope}})
        return str(answer.raise_for_status().headers["X-Subject-Token"])

    def _make(self, kind: str, **facts: str) -> dict[str, Any]:
        answer = self._http.post(f"/{kind}", json={kind[:-1]: facts}).raise_for_status()
        return dict(answer.json()[kind[:-1]])

    def _get(self, kind: str) -> list[dict[str, Any]]:
        return list(self._http.get(f"/{kind}").raise_for_status().json()[kind])

    def _put(self, path: str) -> None:
        self._http.put(f"/{path}").raise_for_status()


@contextmanager
def stand_in(password: str = ADMIN) -> Iterator[StandIn]:
    """Up until the end of the block."""
    identity = StandIn(password)
    thread = Thread(target=identity.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield identity
    finally:
        identity.server.shutdown()
        thread.join()
        identity.server.server_close()


@contextmanager
def keystone(directory: Path) -> Iterator[Keystone]:
    """Up until the end of the block."""
    [port] = free_ports(1)
    sections = {"database": f"connection = sqlite:///{directory}/keystone.db"}
    sections |= {
        name: f"key_repository = {directory}/{name}"
        for name in ("fernet_tokens", "fernet_receipts", "credential")
    }
    (directory / "keystone.conf").write_text(
        "".join(f"[{name}]\n{line}\n" for name, line in sections.items())
    )
    url = f"http://127.0.0.1:{port}/v3"
    internally = ["--bootstrap-internal-url", url, "--bootstrap-region-id", "one"]
    for command in (
        ["db_sync"],
        ["fernet_setup", "--keystone-user", "root", "--keystone-group", "root"],
        ["bootstrap", "--bootstrap-password", ADMIN, "--bootstrap-public-url", url, *internally],
    ):
        manage = [PROGRAMS / "keystone-manage", "--config-dir", directory, *command]
        subprocess.run(manage, check=True, capture_output=True)
    process = supervise(
        *(PROGRAMS / "uwsgi", "--master", "--need-app", "--lazy-apps", "--enable-threads", "--die-on-term"),
        *(f"--http-socket=127.0.0.1:{port}", "--processes=1", "--module=keystone.wsgi.api"),
        *("--disable-logging", "--buffer-size=65535", "--add-header=Connection: close"),
        ready="WSGI app 0 .* ready",
        log=directory / "uwsgi.log",
        environment={"PATH": os.environ["PATH"], "OS_KEYSTONE_CONFIG_DIR": str(directory)},
        owner=os.getpid(),
    )
    try:
        yield Keystone(port)
    finally:
        process.stop()
