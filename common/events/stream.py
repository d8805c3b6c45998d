"""A stream of events for whoever wants to know: the command line, the web page, any program."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
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
_PREFETCH = 100  # messages that are under way to a consumer
_PULSE = 1.0  # seconds at most between two looks at the connection, and whether to end
_PAUSE = 1.0  # seconds from a lost connection to the next


class EventStream:
    """Events as they happen, for one thread that iterates over it; ``end()`` may come from another.

    Without a ``name`` it begins when iteration begins, and what happens while the broker is away is missed.
    With one, events wait in a durable queue of that name: a stream of the same name goes on where the last
    one stopped. **An event counts as taken when the next one is asked for**, and is delivered again until
    then, with the same id. Of several streams of one name, one gets the events, and the others wait.

    Raises :class:`InvalidRequest` for a name that cannot be one.
    """

    def __init__(
        self, conf: cfg.ConfigOpts, wanted: EventFilter | None = None, name: str | None = None
    ) -> None:
        self._wanted = wanted or EventFilter()
        self._connection = broker.connection(conf, heartbeat=True)
        self._faults = broker.faults(self._connection)
        self._queue = self._queue_of(conf, name)
        self._came: deque[Any] = deque()
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
        """The events, until ``end()``. The connection is made again whenever it is lost.

        Raises :class:`ServiceUnavailable` if it cannot be made at first, and
        :class:`~portclaim.common.errors.UnknownSchema`, which leaves the event in the queue.
        """
        while not self._ending.is_set():
            try:
                self._consume()
                while not self._ending.is_set():
                    if not self._came:
                        self._look()
                        continue
                    if (event := self._read(self._came[0])) is not None:
                        yield event
                    self._came.popleft().ack()
            except self._faults as error:
                self._lost(error)

    def start(self) -> None:
        """Have the queue made now, so that nothing is missed from here on. Raises as iteration does."""
        try:
            self._consume()
        except self._faults as error:
            self._lost(error)

    def end(self) -> None:
        """Let the iteration end, within a second. From any thread."""
        self._ending.set()

    def close(self) -> None:
        """Give back what was not taken, and leave. From the thread that iterates."""
        self._ending.set()
        self._leave()

    def delete(self) -> None:
        """Drop the durable queue with all that waits in it. Raises :class:`ServiceUnavailable`."""
        try:
            broker.reach(self._connection)
            self._queue(self._connection.channel()).delete()
        except self._faults as error:
            raise ServiceUnavailable(f"the broker does not answer: {error}") from error
        finally:
            self._leave()

    def _consume(self) -> None:
        """Have events come in, if they do not yet."""
        if self._consumer is None:
            broker.reach(self._connection)
            channel = self._connection.channel()
            channel.basic_qos(0, _PREFETCH, False)
            consumer = kombu.Consumer(channel, [self._queue], on_message=self._came.append)
            consumer.consume()
            self._consumer = consumer
            self._has_been_connected = True

    def _look(self) -> None:
        """Wait for events for a while."""
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=_PULSE)
        if self._connection.supports_heartbeats:
            self._connection.heartbeat_check()

    def _read(self, message: Any) -> Event | None:
        """The event, if it is wanted. What is none does not hold up the others."""
        try:
            event = schema.read(message.body)
        except InvalidMessage as error:
            LOG.warning("passed over a message: %s", error)
            return None
        return event if self._wanted.fits(event) else None

    def _lost(self, error: BaseException) -> None:
        self._leave()
        if not self._has_been_connected:
            raise ServiceUnavailable(f"the broker does not let events be followed: {error}") from error
        LOG.warning("the stream of events was interrupted, and goes on: %s", error)
        self._ending.wait(_PAUSE)

    def _leave(self) -> None:
        """Give back what has come and was not taken."""
        consumer, self._consumer = self._consumer, None
        self._came.clear()
        if consumer is not None:
            with contextlib.suppress(*self._faults):
                consumer.cancel()
        self._connection.release()

    def _queue_of(self, conf: cfg.ConfigOpts, name: str | None) -> kombu.Queue:
        bindings = [kombu.binding(broker.EXCHANGE, routing_key=key) for key in self._wanted.bindings()]
        if name is None:
            return kombu.Queue(bindings=bindings, exclusive=True, durable=False)
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"{name!r} cannot be the name of a queue: use letters, digits and . _ -")
        arguments = {"x-queue-type": broker.queue_type(conf), "x-single-active-consumer": True}
        return kombu.Queue(f"{broker.EXCHANGE.name}.{name}", bindings=bindings, queue_arguments=arguments)
