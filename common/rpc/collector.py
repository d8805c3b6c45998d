"""The server's side of casts that come in great numbers, and that it only has to note."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, Protocol

import kombu
import oslo_messaging
from oslo_config import cfg
from oslo_messaging._drivers.common import RPCException, deserialize_msg
from oslo_messaging.rpc.server import RPCServer

from portclaim.common.errors import InvalidMessage
from portclaim.common.events import broker
from portclaim.common.rpc.endpoint import M, Stoppable, checked

LOG = logging.getLogger(__name__)

_PULSE = 1.0  # seconds, at most, between two checks of the connection and of `stop()`
_PAUSE = 1.0  # seconds from a lost connection to the next attempt
_LIFETIME = 60.0  # seconds of a message without a collector. Then its sender has sent another one


class Collector(Stoppable, Protocol):
    """Calls ``note`` for each message of a queue, in the thread that reads the queue. It answers none.

    For oslo.messaging alone, a message is work for a thread of a pool. For a message that only has to be
    noted, handing it over costs more than the rest. ``note`` must be quick and must not fail. Messages that
    cannot be read are logged.
    """

    def start(self) -> None:
        """Return when the queue exists."""


def collector(
    bus: oslo_messaging.RPCTransport,
    conf: cfg.ConfigOpts,
    queue: str,
    message: type[M],
    note: Callable[[M], None],
) -> Collector:
    """What collects the messages of this type, on the message bus of ``[DEFAULT] transport_url``."""
    if oslo_messaging.TransportURL.parse(conf).transport == "rabbit":
        return _RabbitCollector(conf, queue, message, note)
    return _Server(bus, oslo_messaging.Target(topic=queue, server=conf.host), message, note)


class _Server(RPCServer, Generic[M]):  # type: ignore[misc]  # oslo.messaging has no types
    """For any message bus of oslo.messaging."""

    def __init__(
        self,
        bus: oslo_messaging.RPCTransport,
        target: oslo_messaging.Target,
        message: type[M],
        note: Callable[[M], None],
    ) -> None:
        super().__init__(bus, target, None)
        self._message = message
        self._note = note

    def _on_incoming(self, incoming: list[Any]) -> None:
        for each in incoming:
            with suppress(InvalidMessage):  # it is in the log
                self._note(checked(self._message, each.message["method"], each.message.get("args", {})))


class _RabbitCollector(threading.Thread, Generic[M]):
    """For RabbitMQ, past oslo.messaging: its reading of a message takes three times as long as kombu's.

    Messages are not acknowledged: what a process has not noted yet is lost with it.
    """

    def __init__(self, conf: cfg.ConfigOpts, queue: str, message: type[M], note: Callable[[M], None]) -> None:
        super().__init__(name=f"collector of {queue}", daemon=True)
        self._message = message
        self._note = note
        self._connection = broker.connection(conf, heartbeat=True)
        self._faults = broker.faults(self._connection)
        self._queue = broker.topic_queue(conf, queue, _LIFETIME)
        self._is_consuming = threading.Event()
        self._ending = threading.Event()

    def start(self) -> None:
        super().start()
        self._is_consuming.wait()

    def stop(self) -> None:
        self._ending.set()
        self._is_consuming.set()

    def wait(self) -> None:
        self.join()

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                self._consume()
            except self._faults as error:
                LOG.warning("%s has lost its connection, and will connect again: %s", self.name, error)
                self._connection.release()
                self._ending.wait(_PAUSE)
        self._connection.release()

    def _consume(self) -> None:
        broker.reach(self._connection)
        with kombu.Consumer(self._connection.channel(), [self._queue], no_ack=True, on_message=self._came):
            self._is_consuming.set()
            while not self._ending.is_set():
                try:
                    self._connection.drain_events(timeout=_PULSE)
                except TimeoutError:
                    self._connection.heartbeat_check()

    def _came(self, message: kombu.Message) -> None:
        try:
            sent = deserialize_msg(json.loads(message.body))
            method, fields = sent["method"], sent.get("args", {})
        except (ValueError, TypeError, KeyError, AttributeError, RPCException) as error:
            LOG.warning("%s has ignored a message that is no call of a method: %r", self.name, error)
            return
        with suppress(InvalidMessage):  # it is in the log
            self._note(checked(self._message, method, fields))
