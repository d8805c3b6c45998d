"""The server's side of casts that come in great numbers, and that it only has to note."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Generic, Protocol

import kombu
import oslo_messaging
from oslo_config import cfg
from oslo_messaging.rpc.server import RPCServer

from portclaim.common.errors import PortclaimError
from portclaim.common.events import broker
from portclaim.common.rpc import envelope
from portclaim.common.rpc.bus_url import bus_url
from portclaim.common.rpc.endpoint import M, Stoppable, checked
from portclaim.common.rpc.host_exchange import agents_exchange
from portclaim.common.trust.arrivals import Arrivals, sender
from portclaim.common.trust.gate import Gate, OpenGate
from portclaim.common.trust.refusals import REFUSALS

LOG = logging.getLogger(__name__)

_PULSE = 1.0  # seconds, at most, between two checks of the connection and of `stop()`
_PAUSE = 1.0  # seconds from a lost connection to the next attempt
_LIFETIME = 60.0  # seconds of a message without a collector. Then its sender has sent another one
_CONTEXT = "_context_"


class Collector(Stoppable, Protocol):
    """Calls ``note`` for each message of a queue, in the thread that reads the queue. It answers none.

    For oslo.messaging alone, a message is work for a thread of a pool. For a message that only has to be
    noted, handing it over costs more than the rest. ``note`` must be quick and must not fail. Messages that
    cannot be read are logged.
    """

    def start(self) -> None:
        """Return when the queue exists."""


class Reader(Generic[M]):
    """Notes messages of a type, if the gate admits them. What is wrong with the others is in the log.

    Without a gate, it notes all that no compute agent has signed. ``arrivals`` bounds what hosts send.
    """

    def __init__(
        self,
        message: type[M],
        note: Callable[[M], None],
        gate: Gate | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self.arrivals = arrivals
        self._message = message
        self._note = note
        self._gate = gate or OpenGate("collector")

    def read(self, context: Mapping[str, Any], method: str, fields: dict[str, Any]) -> None:
        with suppress(PortclaimError), self._gate.admitted(context, method, fields):
            self._note(checked(self._message, method, fields))


def collector(
    bus: oslo_messaging.RPCTransport, conf: cfg.ConfigOpts, queue: str, reader: Reader[Any]
) -> Collector:
    """What collects the messages of a queue, on the message bus of ``[DEFAULT] transport_url``."""
    if bus_url(conf).transport == "rabbit":
        return _RabbitCollector(conf, queue, reader)
    return _Server(bus, oslo_messaging.Target(topic=queue, server=conf.host), reader)


class _Server(RPCServer):  # type: ignore[misc]  # oslo.messaging has no types
    """For any message bus of oslo.messaging."""

    def __init__(
        self, bus: oslo_messaging.RPCTransport, target: oslo_messaging.Target, reader: Reader[Any]
    ) -> None:
        super().__init__(bus, target, None)
        self._reader = reader

    def _on_incoming(self, incoming: list[Any]) -> None:
        for each in incoming:
            self._reader.read(each.ctxt, each.message["method"], each.message.get("args", {}))


class _Consumer(kombu.Consumer):  # type: ignore[misc]  # kombu has no types
    arrivals: Arrivals | None = None

    def _receive_callback(self, message: Any) -> None:
        if self.arrivals is not None:
            if not self.arrivals.enter(message.delivery_info, len(message.body)):
                return
            self.arrivals.leave(sender(message.delivery_info))  # it is noted before the next one is read
        envelope.without_compression(message)
        super()._receive_callback(message)


class _RabbitCollector(threading.Thread):
    """For RabbitMQ, past oslo.messaging: its reading of a message takes three times as long as kombu's.

    Messages are not acknowledged: what a process has not noted yet is lost with it.
    """

    def __init__(self, conf: cfg.ConfigOpts, queue: str, reader: Reader[Any]) -> None:
        super().__init__(name=f"collector of {queue}", daemon=True)
        self._reader = reader
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
        channel = self._connection.channel()
        with _Consumer(channel, [self._queue], no_ack=True, on_message=self._came) as consumer:
            consumer.arrivals = self._reader.arrivals
            if consumer.arrivals is not None:
                exchange = agents_exchange()(channel)
                exchange.declare()
                consumer.queues[0].bind_to(exchange, self._queue.routing_key)
            self._is_consuming.set()
            while not self._ending.is_set():
                try:
                    self._connection.drain_events(timeout=_PULSE)
                except TimeoutError:
                    self._connection.heartbeat_check()

    def _came(self, message: kombu.Message) -> None:
        try:
            sent = envelope.read(message.body)
            envelope.check_call(sent)
        except envelope.BadEnvelope as error:
            REFUSALS.note(self._queue.name, "bad-envelope", "an unknown sender", str(error))
            return
        context = {name.removeprefix(_CONTEXT): sent[name] for name in sent if name.startswith(_CONTEXT)}
        self._reader.read(context, sent["method"], sent.get("args", {}))
