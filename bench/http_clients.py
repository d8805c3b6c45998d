"""What a client of the HTTP API does: the same cycle as one over the bus."""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from http.client import HTTPConnection
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from bench import clients
from bench.crew import CYCLE, Do, Work
from portclaim.common import config
from portclaim.common.db import tokens
from portclaim.common.rpc.claim_messages import Claim
from portclaim.services.api import options


def over_http(config_file: str, alias: str) -> Work:
    """Claims and releases over HTTP, each thread on a connection that it keeps; answers of agents by bus."""
    conf = config.load(["--config-file", config_file], "bench")
    conf.register_opts(options.OPTIONS, options.GROUP)
    scheduler, conductor = clients.services(config_file)
    engine = sa.create_engine(conf.database.connection, poolclass=sa.NullPool)
    with engine.begin() as connection:
        token = tokens.create(connection, f"bench-{uuid4()}", "claimer", "bench")
    ask = _Client(conf.api.port, token)
    held: deque[str] = deque()

    def claim() -> None:
        claim_id = str(uuid4())
        body = {"instance_id": str(uuid4()), "extra_specs": {"pci_passthrough:alias": alias}}
        ask("PUT", f"/v1/claims/{claim_id}", body)
        held.append(claim_id)

    def end() -> bool:
        if not held:
            return False
        released = ask("DELETE", f"/v1/claims/{held.popleft()}")
        conductor.cast_step_done(clients.detached(Claim.model_validate(released, extra="ignore")))
        return True

    tasks: dict[str, Do] = {CYCLE: lambda: (claim(), end()), "claim": claim, "end": end}
    return Work(tasks, Counter(), lambda: clients.settled(scheduler))


class _Client:
    """Asks the API at a port of this machine. Threads may share one."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._mine = threading.local()

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        if not hasattr(self._mine, "connection"):
            self._mine.connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection = self._mine.connection
        connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status < 300, said
        return json.loads(said)
