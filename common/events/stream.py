"""A stream of events, for the command line and for any other program."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import kombu
from oslo_config import cfg

from portclaim.common.errors import InvalidMessage, InvalidRequest, ServiceUnavailable
from portclaim.common.events import broker, schema
from portclaim.common.events.schema import Event, EventFilter

LOG = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_PREFETCH = 100  # messages that the broker sends ahead of their acknowledgement
_PULSE = 1.0  # seconds, at most, between two checks of the connection and of `end()`
_PAUSE = 1.0  # seconds from a lost connection to the next attempt


class EventStream:
    """Events as they happen. One thread iterates over the stream; another thread may call :meth:`end`.

    Without a ``name`` the stream begins when the iteration begins, and misses events while the broker is
    down. With a ``name`` events wait in a durable queue of that name, and a new stream of the same name
    continues where the last one stopped. **An event is acknowledged when the consumer asks for the next
    one.** Until then the broker may deliver it again, with the same id. If several streams have the same
    name, one of them gets the events and the others are on standby.

    Raises :class:`InvalidRequest` for an invalid name.

    Example::

        with scheduler.events(EventFilter(kinds=("claim",)), name="billing") as events:
            for event in events:
                print(event.claim_id, event.to_status)
                if event.to_status == "released":
                    break
    """

    def __init__(
        self, conf: cfg.ConfigOpts, wanted: EventFilter | None = None, name: str | None = None
    ) -> None:
        self._wanted = wanted or EventFilter()
        self._connection = broker.connection(conf, heartbeat=True)
        self._faults = broker.faults(self._connection)
        self._queue = self._queue_of(conf, name)
        self._came: deque[Any] = deque()
        self._is_taken = False  # the first of them was returned and is not acknowledged
        self._consumer: Any = None
        self._ending = threading.Event()
        self._has_been_connected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        """The events, until :meth:`end`. A lost connection is made again.

        Raises :class:`ServiceUnavailable` if the first connection fails, and
        :class:`~portclaim.common.errors.UnknownSchema` for an event of another version, which stays in the
        queue.
        """
        while (event := self.next_event(_PULSE)) is not None or not self._ending.is_set():
            if event is not None:
                yield event

    def next_event(self, timeout: float) -> Event | None:
        """The next event. It acknowledges the event before. Raises what the iteration raises.

        None: no event came within ``timeout`` seconds, or :meth:`end` was called, or the connection was lost.
        None also comes as soon as the stream has connected, because it may have missed events before.
        """
        until = time.monotonic() + timeout
        try:
            self._acknowledge()
            if self._consumer is None and not self._ending.is_set():
                self._consume()
                return None
            while not self._ending.is_set():
                if self._came:
                    if (event := self._read(self._came[0])) is not None:
                        self._is_taken = True
                        return event
                    self._came.popleft().ack()
                elif (left := until - time.monotonic()) > 0:
                    self._look(min(left, _PULSE))
                else:
                    break
        except self._faults as error:
            self._lost(error, min(_PAUSE, max(until - time.monotonic(), 0)))
        return None

    def start(self) -> None:
        """Create the queue now: the stream misses no later event. Raises what the iteration raises."""
        try:
            self._consume()
        except self._faults as error:
            self._lost(error)

    def end(self) -> None:
        """End the iteration within a second. Any thread may call it."""
        self._ending.set()

    def close(self) -> None:
        """Return unacknowledged events to the queue and disconnect. The thread that iterates calls it."""
        self._ending.set()
        self._leave()

    def delete(self) -> None:
        """Delete the durable queue with all its events. Raises :class:`ServiceUnavailable`."""
        self._leave()  # if it consumes, the broker would interrupt it instead of answering
        try:
            broker.reach(self._connection)
            self._queue(self._connection.channel()).delete()
        except self._faults as error:
            raise ServiceUnavailable(f"RabbitMQ does not answer: {error}") from error
        finally:
            self._leave()

    def _consume(self) -> None:
        """Connect and consume, unless it does already."""
        if self._consumer is None:
            broker.reach(self._connection)
            channel = self._channel_with_exchange()
            channel.basic_qos(0, _PREFETCH, False)
            consumer = kombu.Consumer(channel, [self._queue], on_message=self._came.append)
            consumer.consume()
            self._consumer = consumer
            self._has_been_connected = True

    def _channel_with_exchange(self) -> Any:
        """A channel. If no conductor has made the exchange yet, it is made here, which needs more rights."""
        channel = self._connection.channel()
        try:
            broker.EXCHANGE(channel).declare(passive=True)
        except self._connection.channel_errors:
            channel = self._connection.channel()
            broker.EXCHANGE(channel).declare()
        return channel

    def _acknowledge(self) -> None:
        """Acknowledge the event that was returned last."""
        if self._is_taken:
            self._is_taken = False
            self._came.popleft().ack()

    def _look(self, timeout: float) -> None:
        """Wait a short time for events."""
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=timeout)
        if self._connection.supports_heartbeats:
            self._connection.heartbeat_check()

    def _read(self, message: Any) -> Event | None:
        """The event, or None if the filter excludes it or the message is not an event."""
        try:
            event = schema.read(message.body)
        except InvalidMessage as error:
            LOG.warning("ignored a message: %s", error)
            return None
        return event if self._wanted.fits(event) else None

    def _lost(self, error: BaseException, pause: float = _PAUSE) -> None:
        self._leave()
        if not self._has_been_connected:
            raise ServiceUnavailable(f"cannot get events from RabbitMQ: {error}") from error
        LOG.warning("lost the connection for events, and will connect again: %s", error)
        self._ending.wait(pause)

    def _leave(self) -> None:
        """Disconnect. The broker puts unacknowledged events back into the queue."""
        consumer, self._consumer = self._consumer, None
        self._came.clear()
        self._is_taken = False
        if consumer is not None:
            with contextlib.suppress(*self._faults):
                consumer.cancel()
        self._connection.release()

    def _binding_keys(self) -> list[str]:
        """Which events the broker sends. The filter selects among them."""
        return self._wanted.bindings()

    def _queue_of(self, conf: cfg.ConfigOpts, name: str | None) -> kombu.Queue:
        bindings = [kombu.binding(broker.MADE_BEFORE, routing_key=key) for key in self._binding_keys()]
        if name is None:
            return kombu.Queue(bindings=bindings, exclusive=True, durable=False)
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"{name!r} is not a valid name for a queue: use 1 to 200 letters, digits and . _ -"
            )
        arguments = {"x-queue-type": broker.queue_type(conf), "x-single-active-consumer": True}
        return kombu.Queue(f"{broker.EXCHANGE.name}.{name}", bindings=bindings, queue_arguments=arguments)
