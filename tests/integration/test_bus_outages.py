"""Outages of the bus: an answer has no queue, a server has no connection."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from oslo_messaging._drivers import impl_rabbit
from oslo_messaging.rpc.server import RPCServer

from portclaim.common import config
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.rpc.endpoint import Endpoint, finish, server
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from tests.support.concurrency import wait_until
from tests.support.hanging_proxy import hanging_proxy
from tests.support.rabbitmq import PASSWORD, USER, Broker, shared_broker
from tests.support.services import as_ini

PATIENCE = 60.0  # seconds in which a caller finds a node that answers: it tries some that do not
AWAY = 3.0  # seconds that a lost queue is missing: longer than a server tries to answer


@pytest.fixture
def bus(rabbit_url: str, tmp_path: Path) -> Iterator[tuple[SchedulerClient, RPCServer]]:
    """A caller and a server with separate connections, which do not reconnect at once."""
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


def test_a_caller_gets_answers_as_soon_as_it_is_connected_again(
    bus: tuple[SchedulerClient, RPCServer], broker: Broker, virtual_host: str
) -> None:
    """It gets them at once, not a minute later, although the server could not deliver an answer before."""
    client, _ = bus
    queues = [queue["name"] for queue in broker.manage("GET", f"queues/{virtual_host}")]
    [for_answers] = [name for name in queues if name.startswith("reply_")]
    broker.manage("DELETE", f"queues/{virtual_host}/{quote(for_answers, safe='')}")
    assert not does_answer(client)
    wait_until(lambda: does_answer(client), "the server answers")


def test_a_server_that_lost_its_connection_stops_cleanly(
    bus: tuple[SchedulerClient, RPCServer], broker: Broker, virtual_host: str
) -> None:
    _, serving = bus
    serving.stop()
    wait_until(lambda: broker.connections(virtual_host), "the broker lists connections")
    for name in broker.connections(virtual_host):
        broker.close_connection(name)
    finish(serving)


def test_an_idle_caller_leaves_a_node_that_hangs(
    bus: tuple[SchedulerClient, RPCServer],
    broker: Broker,
    virtual_host: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With both of its connections, although it sends nothing that would tell: the next call has no delay."""
    as_written = SimpleNamespace(shuffle=lambda _nodes: None)  # it begins with the first node
    monkeypatch.setattr(impl_rabbit, "random", as_written)
    with hanging_proxy(broker.amqp) as node:
        hosts = ",".join(
            f"{USER}:{PASSWORD}@127.0.0.1:{port}" for port in (node.port, broker.amqp, broker.amqp)
        )
        file = tmp_path / "caller.conf"
        sections = {
            "DEFAULT": {"transport_url": f"rabbit://{hosts}/{virtual_host}"},
            "oslo_messaging_rabbit": {"heartbeat_timeout_threshold": 1, "rabbit_retry_interval": 1},
        }
        file.write_text(as_ini(sections))
        conf = config.load(["--config-file", str(file)], "test")
        ours = transport(conf)
        try:
            SchedulerClient(ours, conf).ping()
            before = set(broker.connections(virtual_host))
            node.hang()
            wait_until(
                lambda: len(set(broker.connections(virtual_host)) - before) == 2,
                "both connections are to another node",
                PATIENCE,
            )
        finally:
            ours.cleanup()
