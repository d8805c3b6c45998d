"""The queues of the scheduler: one for callers, and one for operators."""

from __future__ import annotations

import oslo_messaging
from oslo_config import cfg

from portclaim.common.rpc.endpoint import Endpoint, Entrance, server
from portclaim.common.rpc.operators import OPERATORS, OPERATORS_METHODS
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.trust.gate import Gate, MethodGate

_OPERATORS_AT_ONCE = 2  # operators' calls in hand at the same time, beside those of callers


def start_servers(
    bus: oslo_messaging.RPCTransport, conf: cfg.ConfigOpts, endpoint: Endpoint
) -> list[oslo_messaging.RPCServer]:
    """Serve both queues. The broker's permissions decide who can write to which."""
    topic = SchedulerClient.topic
    callers: Gate | None = None
    if not conf.trust.operators_on_scheduler_topic:
        instead = f"send it to {OPERATORS}, as a client of this release does"
        callers = MethodGate(topic, instead, refused=OPERATORS_METHODS)
    operators = MethodGate(OPERATORS, f"send it to {topic}", only=OPERATORS_METHODS)
    servers = [
        server(bus, topic, conf.host, endpoint, Entrance(OPERATORS, operators)),
        server(bus, topic, conf.host, endpoint, Entrance(gate=callers)),
    ]
    for each, threads in zip(servers, (_OPERATORS_AT_ONCE, conf.rpc.threads), strict=True):
        each.start(override_pool_size=threads)
    return servers
