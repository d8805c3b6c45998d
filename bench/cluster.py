"""A RabbitMQ cluster of three nodes on this machine, with classic or with quorum queues."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.bus import RunningBroker
from tests.support.rabbitmq import PASSWORD, USER, prepare_node, start_node, start_port_mapper

NODES = 3
_NAMES = [f"bench{number}@localhost" for number in range(NODES)]
# The others find the first node by its name, and join it.
_DISCOVERY = "cluster_formation.peer_discovery_backend = classic_config\n" + "".join(
    f"cluster_formation.classic_config.nodes.{number} = {name}\n" for number, name in enumerate(_NAMES, 1)
)


QUORUM = {"rabbit_quorum_queue": True, "rabbit_transient_quorum_queue": True}


def quorum_queues(stack: ExitStack) -> RunningBroker:
    """Each queue has a copy on every node."""
    return _three_nodes(stack)._replace(options=QUORUM)


def classic_queues(stack: ExitStack) -> RunningBroker:
    """Each queue is on one node."""
    return _three_nodes(stack)


def _three_nodes(stack: ExitStack) -> RunningBroker:
    brokers, pids, home = [], [], {}
    for name in _NAMES:
        directory = Path(tempfile.mkdtemp(prefix="portclaim-rabbitmq-"))
        broker, environment = prepare_node(directory, _DISCOVERY)
        if not home:  # one cookie and one port mapper for all
            home = {each: environment[each] for each in ("HOME", "ERL_EPMD_PORT")}
            stack.callback(start_port_mapper(directory, environment, os.getpid()).stop)
        environment |= {**home, "RABBITMQ_NODENAME": name}
        node = start_node(directory / "log", environment, os.getpid(), directory)
        stack.callback(node.stop)
        brokers.append(broker)
        pids.append(node.pid)
    listed = brokers[0].manage("GET", "nodes")
    if len(listed) != NODES or not all(node["running"] for node in listed):
        raise RuntimeError(f"the nodes have made no cluster: {[node['name'] for node in listed]}")
    name = brokers[0].create_virtual_host().rpartition("/")[2]
    hosts = ",".join(f"{USER}:{PASSWORD}@127.0.0.1:{broker.amqp}" for broker in brokers)
    return RunningBroker(f"rabbit://{hosts}/{name}", tuple(pids), {})
