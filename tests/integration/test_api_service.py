"""``portclaim-api`` as an operator starts it: a process with workers, over RabbitMQ."""

from uuid import uuid4

import httpx

from portclaim.common.db import tokens
from tests.support.concurrency import at_once
from tests.support.fleet import ALIASES, Fleet
from tests.support.http_api import asked
from tests.support.rabbitmq import free_ports
from tests.support.services import Services


def test_it_claims_over_rabbitmq_and_stops_in_good_order(service_process: Services, fleet: Fleet) -> None:
    fleet.host("h1", ports=2, vfs=4)
    [port] = free_ports(1)
    service_process("scheduler", {"pci": {"alias": ALIASES}})
    api = service_process("api", {"api": {"port": port, "workers": 2}})
    assert len(api.workers) >= 2
    with fleet.engine.begin() as connection:
        token = tokens.create(connection, "operator", "operator", None)
    url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{url}/readyz", timeout=60).json()["status"] == "ok"

    def claim() -> httpx.Response:
        return httpx.put(f"{url}/v1/claims/{uuid4()}", json=asked(), headers=headers, timeout=60)

    answers = at_once([claim] * 6)
    assert [answer.json()["status"] for answer in answers] == ["claimed"] * 6  # type: ignore[union-attr]
    api.stop()
