"""Publish events, and mark them when the broker has confirmed them. Unmarked events are published again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import kombu
import sqlalchemy as sa
from oslo_config import cfg

from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.events import broker, schema
from portclaim.common.metrics.catalogue import EVENTS_PUBLISHED
from portclaim.services.conductor import event_log
from portclaim.services.conductor.event_log import Recorded

LOG = logging.getLogger(__name__)

_BATCH = 500
_PATIENCE = 10.0  # seconds for the broker; less than PostgreSQL lets the transaction be idle


class Publisher:
    """Publishes recorded events. Any number of publishers may run: one works at a time.

    ``look_again`` is called when another publisher is at work. That one may have missed the newest events.
    """

    def __init__(
        self,
        engine: sa.Engine,
        publish: Callable[[Sequence[Recorded]], None],
        look_again: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._publish = publish
        self._look_again = look_again
        self._is_held_up = False

    def work(self) -> bool:
        """Publish a batch; answer whether there may be more."""
        try:
            published = self.publish_batches()
        except ServiceUnavailable as error:
            if not self._is_held_up:
                LOG.warning("events are not published for now: %s", error)
            self._is_held_up = True
            return False
        if self._is_held_up:
            LOG.info("events are published again")
            self._is_held_up = False
        EVENTS_PUBLISHED.count(by=published)
        return published >= _BATCH

    def publish_batches(self, limit: int = _BATCH) -> int:
        """Publish at most a batch of each kind; answer how many events that were.

        Raises :class:`ServiceUnavailable`; then some may have been published, and none is marked.
        """
        published = in_transaction(self._engine, lambda connection: self._publish_batch(connection, limit))
        if published is None:
            self._look_again()
        return published or 0

    def _publish_batch(self, connection: sa.Connection, limit: int) -> int | None:
        batch = event_log.batch(connection, limit)
        if batch is None:
            return None
        if batch.events:
            self._publish(batch.events)
        batch.mark()
        return len(batch.events)


class Exchange:
    """The exchange of events, on a connection of its own that is opened when it is needed. For one thread."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._connection = broker.connection(conf, heartbeat=False, write_timeout=_PATIENCE)
        self._faults = broker.faults(self._connection)
        self._channel: Any = None

    def publish(self, events: Sequence[Recorded]) -> None:
        """Publish, and return when the broker has confirmed all events.

        Raises :class:`ServiceUnavailable`.
        """
        try:
            if self._channel is None:
                self._open()
            for event in events:
                self._send(event)
            self._confirms.wait(self._connection)
        except self._faults as error:
            self.close()
            raise ServiceUnavailable(f"the broker does not take events: {error}") from error

    def close(self) -> None:
        self._channel = None
        self._connection.release()

    def _open(self) -> None:
        broker.reach(self._connection)
        channel = self._connection.channel()
        broker.EXCHANGE(channel).declare()
        self._confirms = _Confirms(channel)
        self._producer = kombu.Producer(channel, broker.EXCHANGE, auto_declare=False)
        self._channel = channel

    def _send(self, event: Recorded) -> None:
        self._producer.publish(
            event.body,
            routing_key=schema.routing_key(event.kind, event.to_status, event.host),
            headers={"CC": [schema.claim_key(event.claim_id)]} if event.claim_id else {},
            content_type="application/json",
            content_encoding="utf-8",
            message_id=f"{event.kind}-{event.id}",
        )
        self._confirms.expect()


class _Confirms:
    """The messages that the broker has not confirmed yet, by their number on the channel.

    kombu by itself waits for the confirm of each message before it sends the next. RabbitMQ also confirms
    messages that it cannot route. The in-memory transport has no confirms.
    """

    def __init__(self, channel: Any) -> None:
        self._sent = 0
        self._open: set[int] = set()
        self._refused = False
        self._are_given = hasattr(channel, "confirm_select")
        if self._are_given:
            channel.events["basic_ack"].add(self._acked)
            channel.events["basic_nack"].add(self._nacked)
            channel.confirm_select()

    def expect(self) -> None:
        """Count one more message that was sent."""
        self._sent += 1
        if self._are_given:
            self._open.add(self._sent)

    def wait(self, connection: kombu.Connection) -> None:
        """Wait for all confirms.

        Raises TimeoutError, and kombu's OperationalError if the broker refused a message.
        """
        deadline = time.monotonic() + _PATIENCE
        while self._open:
            connection.drain_events(timeout=max(deadline - time.monotonic(), 0.001))
        if self._refused:
            raise kombu.exceptions.OperationalError("the broker could not store an event")

    def _acked(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._open = {sent for sent in self._open if sent > tag}
        else:
            self._open.discard(tag)

    def _nacked(self, tag: int, multiple: bool) -> None:
        self._refused = True
        self._acked(tag, multiple)
