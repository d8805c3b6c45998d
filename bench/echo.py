"""``python -m bench.echo``: a service that sends back what it gets, on the same transport as the others."""

from __future__ import annotations

from typing import Any

import oslo_messaging
from oslo_config import cfg

from common import service
from common.rpc.endpoint import Endpoint, server
from common.rpc.transport import transport


class EchoEndpoint(Endpoint):
    """The least that a server can do."""

    @oslo_messaging.expose
    def echo(self, _context: object, **fields: Any) -> dict[str, Any]:
        return fields


class Echo:
    """One worker, with as many threads as one of the scheduler."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def start(self) -> None:
        self._bus = transport(self._conf)
        self._server = server(self._bus, "echo", self._conf.host, EchoEndpoint())
        self._server.start(override_pool_size=self._conf.rpc.threads)

    def stop(self) -> None:
        self._server.stop()
        self._server.wait()
        self._bus.cleanup()


def main() -> None:
    service.main("echo", Echo, lambda conf: conf.scheduler.workers)


if __name__ == "__main__":
    main()
