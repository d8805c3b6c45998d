"""A RabbitMQ cluster of three nodes. Each node can be stopped, killed, paused, and started again.

All nodes are on this machine. With a network of hosts, each node is on a host of its own, and they can be
cut off from each other.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from portclaim.cli.supervisor import SupervisedProcess
from tests.support.concurrency import wait_until
from tests.support.place import Place
from tests.support.rabbitmq import PASSWORD, USER, Broker, prepare_node, start_node, start_port_mapper

NODES = 3
QUORUM = {"rabbit_quorum_queue": True, "rabbit_transient_quorum_queue": True}
"""Options of ``[oslo_messaging_rabbit]``: each queue has a copy on every node."""
SILENCE = 8
"""Seconds after which nodes take another for lost that says nothing (``net_ticktime``)."""
PATIENCE = 120.0  # seconds in which a node must be back, on a busy machine
_HERE = (Place(),) * NODES


class RabbitMQCluster:
    """It lives as long as the process ``owner``, or until ``stack`` is closed.

    ``places``: where its nodes run.
    """

    def __init__(self, stack: ExitStack, owner: int, places: Sequence[Place] = _HERE) -> None:
        self._owner = owner
        self._starts = 0
        self._places = places
        self._names = [_name(number, place) for number, place in enumerate(places)]
        self._brokers: list[Broker] = []
        self._environments: list[dict[str, str]] = []
        self._directories: list[Path] = []
        self._nodes: list[SupervisedProcess] = []
        shared: dict[str, str] = {}
        for number, place in enumerate(places):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="portclaim-rabbitmq-")))
            broker, environment = prepare_node(directory, self._configuration(), place.address)
            environment |= shared | {
                "RABBITMQ_NODENAME": self._names[number],
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel net_ticktime {SILENCE}",
            }
            if place.enter is not None:
                environment["RABBITMQ_USE_LONGNAME"] = "true"
            if not shared or place.enter is not None:  # a port mapper for each host
                mapper = partial(start_port_mapper, directory, environment, owner)
                stack.callback(place.run(mapper).stop)
            # One cookie for all, and all port mappers have the same port.
            shared = {each: environment[each] for each in ("HOME", "ERL_EPMD_PORT")}
            self._brokers.append(broker)
            self._environments.append(environment)
            self._directories.append(directory)
            self._nodes.append(self._started(number))
            stack.callback(lambda number=number: self._nodes[number].stop())
        if not self.is_whole():
            raise RuntimeError("the nodes have made no cluster")
        self.url = self.new_url()

    def new_url(self) -> str:
        """The transport URL, with all nodes, of a new virtual host."""
        virtual_host = self._brokers[0].create_virtual_host().rpartition("/")[2]
        hosts = ",".join(f"{USER}:{PASSWORD}@{broker.address}:{broker.amqp}" for broker in self._brokers)
        return f"rabbit://{hosts}/{virtual_host}"

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of the nodes."""
        return tuple(node.pid for node in self._nodes)

    def kill(self, number: int) -> None:
        """Kill a node at once. Its data stay."""
        os.killpg(self._nodes[number].pid, signal.SIGKILL)
        self._nodes[number].wait()

    def stop(self, number: int) -> None:
        """Stop a node as an operator does. Returns when it has ended."""
        os.kill(self._nodes[number].pid, signal.SIGTERM)
        self._nodes[number].wait()

    def pause(self, number: int) -> None:
        """Stop a node where it is. Its connections stay open, and it answers nobody."""
        os.killpg(self._nodes[number].pid, signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let a node go on that was paused. Returns when the cluster is whole again."""
        os.killpg(self._nodes[number].pid, signal.SIGCONT)
        self.wait_until_whole()

    def start(self, number: int) -> None:
        """Start a node that has ended. Returns when the cluster is whole again."""
        self._nodes[number] = self._started(number)
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Wait until all nodes run and see each other, and each could be stopped without loss of a queue."""
        wait_until(self.is_whole, "all nodes are in the cluster", PATIENCE)
        wait_until(lambda: not any(map(self._is_critical, range(NODES))), "all queues are copied", PATIENCE)

    def is_whole(self) -> bool:
        """Do all nodes run, and does each see all others?"""
        return all(self._seen_by(number) == set(self._names) for number in range(NODES))

    def does_serve(self, number: int) -> bool:
        """Can clients connect to a node? A node in a minority takes none."""
        broker = self._brokers[number]
        try:
            socket.create_connection((broker.address, broker.amqp), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True

    def connections(self) -> list[int]:
        """How many connections of clients each node has."""
        listed = self._brokers[0].manage("GET", "connections")
        of_nodes = Counter(connection["node"] for connection in listed)
        return [of_nodes[name] for name in self._names]

    def _seen_by(self, number: int) -> set[str]:
        """The running nodes as this node sees them; none if it does not serve."""
        try:
            listed = self._brokers[number].manage("GET", "nodes")
        except (OSError, http.client.HTTPException):
            return set()
        return {node["name"] for node in listed if node["running"]}

    def _is_critical(self, number: int) -> bool:
        """Would a queue lose its majority without this node?"""
        try:
            self._brokers[number].manage("GET", "health/checks/node-is-quorum-critical")
        except (OSError, http.client.HTTPException):  # 503, or it does not answer yet
            return True
        return False

    def _configuration(self) -> str:
        """The nodes find the first one by its name, and join it. A minority stops, and returns by itself."""
        return "\n".join(
            [
                "cluster_partition_handling = pause_minority",
                "loopback_users = none",
                "cluster_formation.peer_discovery_backend = classic_config",
                *(
                    f"cluster_formation.classic_config.nodes.{number} = {name}"
                    for number, name in enumerate(self._names, 1)
                ),
                "",
            ]
        )

    def _started(self, number: int) -> SupervisedProcess:
        self._starts += 1
        log = self._directories[number] / f"log.{self._starts}"
        start = partial(start_node, log, self._environments[number], self._owner)
        return self._places[number].run(start)


def _name(number: int, place: Place) -> str:
    return f"node{number}@localhost" if place.enter is None else f"portclaim@{place.address}"
