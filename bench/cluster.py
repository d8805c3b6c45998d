"""A RabbitMQ cluster of three nodes on this machine, with classic or with quorum queues."""

from __future__ import annotations

import os
from contextlib import ExitStack

from bench.bus import RunningBroker
from tests.support.rabbitmq_cluster import QUORUM, RabbitMQCluster


def quorum_queues(stack: ExitStack) -> RunningBroker:
    """Each queue has a copy on every node."""
    return classic_queues(stack)._replace(options=QUORUM)


def classic_queues(stack: ExitStack) -> RunningBroker:
    """Each queue is on one node."""
    cluster = RabbitMQCluster(stack, os.getpid())
    return RunningBroker(cluster.url, cluster.pids, {})
