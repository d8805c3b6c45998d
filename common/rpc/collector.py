"""The server's side of casts that come in great numbers, and that it only has to note."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic

import oslo_messaging
from oslo_messaging.rpc.server import RPCServer

from portclaim.common.errors import InvalidMessage
from portclaim.common.rpc.endpoint import M, checked


class Collector(RPCServer, Generic[M]):  # type: ignore[misc]  # oslo.messaging has no types
    """Calls ``note`` for each message of a queue, in the thread that reads the queue. It answers none.

    For oslo.messaging alone, a message is work for a thread of a pool. For a message that only has to be
    noted, handing it over costs more than the rest. ``note`` must be quick and must not fail.
    """

    def __init__(
        self,
        bus: oslo_messaging.RPCTransport,
        queue: str,
        name: str,
        message: type[M],
        note: Callable[[M], None],
    ) -> None:
        super().__init__(bus, oslo_messaging.Target(topic=queue, server=name), None)
        self._message = message
        self._note = note

    def _on_incoming(self, incoming: list[Any]) -> None:
        for each in incoming:
            with suppress(InvalidMessage):  # it is in the log
                self._note(checked(self._message, each.message["method"], each.message.get("args", {})))
