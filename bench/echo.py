"""``python -m bench.echo``: a service that sends back what it gets, on the same transport as the others."""

from __future__ import annotations

from typing import Any

import oslo_messaging
from oslo_config import cfg

from portclaim.common import service
from portclaim.common.rpc.endpoint import Endpoint, server
from portclaim.common.rpc.transport import transport
from portclaim.common.rpc.versions import FIRST


class EchoEndpoint(Endpoint):
    """The least that a server can do."""

    def __init__(self, agents: oslo_messaging.RPCClient) -> None:
        self._agents = agents

    @oslo_messaging.expose
    def echo(self, _context: object, **fields: Any) -> dict[str, Any]:
        return fields

    @oslo_messaging.expose
    def echo_and_cast(self, _context: object, **fields: Any) -> dict[str, Any]:
        """The same, and a cast besides, as a scheduler sends one to an agent; here nobody takes it."""
        self._agents.cast({}, "attach", **fields)
        return fields


class Echo:
    """One worker, with as many threads as one of the scheduler."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def start(self) -> None:
        self._bus = transport(self._conf)
        agent = oslo_messaging.Target(topic="compute_agent", version=FIRST, server="host-1")
        endpoint = EchoEndpoint(oslo_messaging.get_rpc_client(self._bus, agent))
        self._server = server(self._bus, "echo", self._conf.host, endpoint)
        self._server.start(override_pool_size=self._conf.rpc.threads)

    def stop(self) -> None:
        self._server.stop()
        self._server.wait()
        self._bus.cleanup()


def main() -> None:
    service.main("echo", Echo, lambda conf: conf.scheduler.workers)


if __name__ == "__main__":
    main()
