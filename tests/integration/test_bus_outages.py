"""What the bus loses and finds again: answers without a queue, servers without a connection."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from oslo_messaging.rpc.server import RPCServer

from portclaim.common import config
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.rpc.endpoint import Endpoint, finish, server
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from tests.support.concurrency import wait_until
from tests.support.rabbitmq import Broker, shared_broker
from tests.support.services import as_ini

AWAY = 3.0  # seconds that a lost queue is away: longer than anybody tries to answer


@pytest.fixture
def bus(rabbit_url: str, tmp_path: Path) -> Iterator[tuple[SchedulerClient, RPCServer]]:
    """A caller and a server, each with connections of its own, that do not come back at once."""
    file = tmp_path / "impatient.conf"
    sections = {
        "DEFAULT": {"transport_url": rabbit_url},
        "rpc": {"timeout": 1.0, "attempts": 1},
        "oslo_messaging_rabbit": {"kombu_reconnect_delay": AWAY},
    }
    file.write_text(as_ini(sections))
    confs = [config.load(["--config-file", str(file)], "test") for _ in range(2)]
    ours, theirs = map(transport, confs)
    serving = server(theirs, "scheduler", "one", Endpoint())
    serving.start(override_pool_size=2)
    client = SchedulerClient(ours, confs[0])
    client.ping()
    yield client, serving
    serving.stop()
    serving.wait()
    ours.cleanup()
    theirs.cleanup()


@pytest.fixture
def virtual_host(rabbit_url: str) -> str:
    return rabbit_url.rpartition("/")[2]


@pytest.fixture
def broker() -> Broker:
    return shared_broker()


def does_answer(client: SchedulerClient) -> bool:
    try:
        client.ping()
    except ServiceUnavailable:
        return False
    return True


def test_who_was_away_gets_answers_again_as_soon_as_it_is_back(
    bus: tuple[SchedulerClient, RPCServer], broker: Broker, virtual_host: str
) -> None:
    """And not a minute later, although a server has found that there is nobody to answer to."""
    client, _ = bus
    queues = [queue["name"] for queue in broker.manage("GET", f"queues/{virtual_host}")]
    [for_answers] = [name for name in queues if name.startswith("reply_")]
    broker.manage("DELETE", f"queues/{virtual_host}/{for_answers}")
    assert not does_answer(client)
    wait_until(lambda: does_answer(client), "the server answers")


def test_a_server_without_a_connection_finishes(
    bus: tuple[SchedulerClient, RPCServer], broker: Broker, virtual_host: str
) -> None:
    _, serving = bus
    serving.stop()
    wait_until(lambda: broker.connections(virtual_host), "the broker lists connections")
    for name in broker.connections(virtual_host):
        broker.close_connection(name)
    finish(serving)
