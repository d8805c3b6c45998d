"""A RabbitMQ cluster of three nodes with quorum queues: one node at a time is lost while claims are made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.caller import Caller
from tests.support.engines import run_owner, skip_without
from tests.support.one_host import OneHost, one_host
from tests.support.rabbitmq import find_server
from tests.support.rabbitmq_cluster import NODES, QUORUM, RabbitMQCluster
from tests.support.services import Services

OPTIONS = {
    "rpc": {"timeout": 3.0},
    "oslo_messaging_rabbit": {
        **QUORUM,
        "heartbeat_timeout_threshold": 4,
        "rabbit_retry_interval": 1,
        "rabbit_retry_backoff": 1,
        "rabbit_interval_max": 2,
        "kombu_reconnect_delay": 0.5,
    },
}


# Three nodes take half a minute to start, and a minute on a busy machine: `make chaos-ha` runs this.
pytestmark = pytest.mark.skipif(os.environ.get("PORTCLAIM_CHAOS") != "long", reason="long: run make chaos-ha")


@pytest.fixture
def cluster() -> Iterator[RabbitMQCluster]:
    if find_server() is None:
        skip_without("RabbitMQ", "as root: apt-get install rabbitmq-server")
    with ExitStack() as stack:
        yield RabbitMQCluster(stack, run_owner())


@pytest.fixture
def fleet(cluster: RabbitMQCluster, database_url: str, tmp_path: Path) -> Iterator[OneHost]:
    services = Services(tmp_path, cluster.url, database_url)
    with one_host(services, tmp_path, more=OPTIONS) as fleet:
        fleet.start_agent()
        fleet.wait_for_report()
        yield fleet
        services.end()


@pytest.fixture
def caller(fleet: OneHost) -> Iterator[Caller]:
    caller = Caller(fleet)
    caller.start()
    yield caller
    caller.end()


def test_each_node_is_killed_and_comes_back_and_claims_go_on(
    cluster: RabbitMQCluster, fleet: OneHost, caller: Caller
) -> None:
    for node in range(NODES):
        caller.wait_for_answers()
        cluster.kill(node)
        caller.wait_for_answers()
        cluster.start(node)
    caller.end()
    for claim_id in set(caller.answered):
        fleet.wait_for(claim_id, "released")
    assert fleet.held() == set()
