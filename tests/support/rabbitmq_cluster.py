"""A RabbitMQ cluster of three nodes on this machine. Each node can be killed and started again."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path

from portclaim.cli.supervisor import SupervisedProcess
from tests.support.rabbitmq import PASSWORD, USER, Broker, prepare_node, start_node, start_port_mapper

NODES = 3
QUORUM = {"rabbit_quorum_queue": True, "rabbit_transient_quorum_queue": True}
"""Options of ``[oslo_messaging_rabbit]``: each queue has a copy on every node."""
_NAMES = [f"node{number}@localhost" for number in range(NODES)]
# The others find the first node by its name, and join it.
_DISCOVERY = "cluster_formation.peer_discovery_backend = classic_config\n" + "".join(
    f"cluster_formation.classic_config.nodes.{number} = {name}\n" for number, name in enumerate(_NAMES, 1)
)


class RabbitMQCluster:
    """It lives as long as the process ``owner``, or until ``stack`` is closed."""

    def __init__(self, stack: ExitStack, owner: int) -> None:
        self._owner = owner
        self._starts = 0
        self._brokers: list[Broker] = []
        self._environments: list[dict[str, str]] = []
        self._directories: list[Path] = []
        self._nodes: list[SupervisedProcess] = []
        home: dict[str, str] = {}
        for number, name in enumerate(_NAMES):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="portclaim-rabbitmq-")))
            broker, environment = prepare_node(directory, _DISCOVERY)
            if not home:  # one cookie and one port mapper for all
                home = {each: environment[each] for each in ("HOME", "ERL_EPMD_PORT")}
                stack.callback(start_port_mapper(directory, environment, owner).stop)
            self._brokers.append(broker)
            self._environments.append(environment | home | {"RABBITMQ_NODENAME": name})
            self._directories.append(directory)
            self._nodes.append(self._started(number))
            stack.callback(lambda number=number: self._nodes[number].stop())
        running = self.running()
        if running != set(_NAMES):
            raise RuntimeError(f"the nodes have made no cluster: {running}")
        self._virtual_host = self._brokers[0].create_virtual_host().rpartition("/")[2]

    @property
    def url(self) -> str:
        """The transport URL with all nodes."""
        hosts = ",".join(f"{USER}:{PASSWORD}@127.0.0.1:{broker.amqp}" for broker in self._brokers)
        return f"rabbit://{hosts}/{self._virtual_host}"

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of the nodes."""
        return tuple(node.pid for node in self._nodes)

    def running(self, asked: int = 0) -> set[str]:
        """The names of the nodes that run, as the node ``asked`` sees it."""
        return {node["name"] for node in self._brokers[asked].manage("GET", "nodes") if node["running"]}

    def kill(self, number: int) -> None:
        """Kill a node at once. Its data stay."""
        os.killpg(self._nodes[number].pid, signal.SIGKILL)
        self._nodes[number].wait()

    def start(self, number: int) -> None:
        """Start a node that was killed. Returns when it is in the cluster again."""
        self._nodes[number] = self._started(number)

    def _started(self, number: int) -> SupervisedProcess:
        self._starts += 1
        log = self._directories[number] / f"log.{self._starts}"
        return start_node(log, self._environments[number], self._owner)
