"""A RabbitMQ cluster of three nodes with quorum queues loses nodes while claims are made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path

import pytest

from tests.chaos import privacy
from tests.chaos.network import Network
from tests.support.concurrency import wait_until
from tests.support.engines import run_owner, skip_without
from tests.support.rabbitmq import find_server
from tests.support.rabbitmq_cluster import NODES, PATIENCE, QUORUM, RabbitMQCluster
from tests.support.under_load import UnderLoad, under_load

HOSTS = ["mq-1", "mq-2", "mq-3"]
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
needs_network = pytest.mark.skipif(not privacy.has_network(), reason=privacy.why_not())


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[RabbitMQCluster]:
    """Each node is on a host of its own, where the run has a private network."""
    if find_server() is None:
        skip_without("RabbitMQ", "as root: apt-get install rabbitmq-server")
    with ExitStack() as stack:
        if privacy.has_network():
            network = request.getfixturevalue("network")
            yield RabbitMQCluster(stack, run_owner(), [network.place(host) for host in HOSTS])
        else:
            yield RabbitMQCluster(stack, run_owner())


@pytest.fixture
def load(
    cluster: RabbitMQCluster,
    database_url: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Iterator[UnderLoad]:
    cluster.wait_until_whole()
    with under_load(tmp_path, cluster.new_url(), database_url, OPTIONS, record_property) as load:
        yield load


def test_each_node_is_killed_and_comes_back(cluster: RabbitMQCluster, load: UnderLoad) -> None:
    for node in range(NODES):
        with load.fault("node of RabbitMQ killed") as fault:
            cluster.kill(node)
            fault.is_survived()
            cluster.start(node)
    load.nothing_is_lost()


def test_all_nodes_are_restarted_one_after_the_other(cluster: RabbitMQCluster, load: UnderLoad) -> None:
    with load.fault("all nodes of RabbitMQ restarted one after the other"):
        for node in range(NODES):
            cluster.stop(node)
            cluster.start(node)
    load.nothing_is_lost()


@pytest.mark.xfail(
    strict=True, reason="the conductor and the agents do not hear each other again while a node hangs"
)
def test_each_node_hangs_and_goes_on(cluster: RabbitMQCluster, load: UnderLoad) -> None:
    for node in range(NODES):
        with load.fault("node of RabbitMQ hangs") as fault:
            cluster.pause(node)
            try:
                fault.is_survived()
            finally:
                cluster.resume(node)
    load.nothing_is_lost()


@needs_network
def test_callers_on_the_smaller_side_of_a_split_go_to_the_larger_side(
    cluster: RabbitMQCluster, network: Network, load: UnderLoad
) -> None:
    connections = cluster.connections()
    smaller = connections.index(max(connections))
    assert connections[smaller] > 0
    others = [node for node in range(NODES) if node != smaller]
    with load.fault("node of RabbitMQ cut off from the others, with callers on it") as fault:
        for other in others:
            network.separate(HOSTS[smaller], HOSTS[other])
        wait_until(lambda: not cluster.does_serve(smaller), "the smaller side serves nobody", PATIENCE)
        fault.is_survived()
        assert [cluster.does_serve(other) for other in others] == [True, True]
        for other in others:
            network.join(HOSTS[smaller], HOSTS[other])
        cluster.wait_until_whole()
    load.nothing_is_lost()


@needs_network
def test_without_a_larger_side_nobody_claims_until_the_network_is_back(
    cluster: RabbitMQCluster, network: Network, load: UnderLoad
) -> None:
    with load.fault("all nodes of RabbitMQ cut off from each other"):
        for one, other in combinations(HOSTS, 2):
            network.separate(one, other)
        wait_until(lambda: not any(map(cluster.does_serve, range(NODES))), "no node serves", PATIENCE)
        load.nobody_can_claim()
        for one, other in combinations(HOSTS, 2):
            network.join(one, other)
        cluster.wait_until_whole()
    load.nothing_is_lost()
