"""Connections of oslo.messaging that need few rights at the broker, and that check what they get."""

from __future__ import annotations

import re
from functools import partial
from types import MethodType
from typing import Any
from uuid import uuid4

import oslo_messaging
from oslo_messaging._drivers import base
from oslo_messaging._drivers.amqpdriver import AMQPDriverBase, RpcAMQPListener
from oslo_messaging._drivers.common import PURPOSE_LISTEN, PURPOSE_SEND
from oslo_messaging._drivers.impl_rabbit import Connection, RabbitDriver, amqp_ex

from portclaim.common.rpc import envelope
from portclaim.common.rpc.host_exchange import agents_exchange
from portclaim.common.trust.arrivals import Arrivals

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._:-]")


def use(bus: oslo_messaging.RPCTransport, *, makes_exchange: bool) -> None:
    """Have a transport use such connections. Other transports of the process stay as they are."""
    driver = bus._driver
    if isinstance(driver, RabbitDriver):
        driver._connection_pool.connection_cls = partial(_Connection, makes_exchange)
        prefix = reply_queue_prefix(next((host.username for host in driver._url.hosts), None) or "guest")
        driver._get_reply_queue_name = lambda: prefix + uuid4().hex


def reply_queue_prefix(user: str) -> str:
    """How the names of the queues begin in which a user of the broker gets answers.

    Its permissions are for these queues only. A name of a user has no slash, so no prefix begins another one.
    """
    return f"reply_{_NOT_IN_A_NAME.sub('_', user)}/"


def listen(
    bus: oslo_messaging.RPCTransport,
    topic: str,
    name: str,
    *,
    is_shared: bool,
    arrivals: Arrivals | None = None,
) -> Any:
    """A listener to the queue ``<topic>.<name>``, and to the one of the topic if it is shared.

    With ``arrivals``, the topic's queue also gets what hosts send through their own exchanges, as far as
    ``arrivals`` lets it pass.

    None: this message bus is not RabbitMQ. oslo.messaging alone also makes an exchange and a queue for calls
    to all servers at once, of which Portclaim has none.
    """
    driver = bus._driver
    if not isinstance(driver, AMQPDriverBase):
        return None
    connection = driver._get_connection(PURPOSE_LISTEN)
    listener = RpcAMQPListener(driver, connection)
    listener.arrivals = arrivals
    exchange = driver._get_exchange(oslo_messaging.Target(topic=topic))
    for queue in (topic, f"{topic}.{name}") if is_shared else (f"{topic}.{name}",):
        connection.declare_topic_consumer(exchange_name=exchange, topic=queue, callback=listener)
    return base.PollStyleListenerAdapter(listener, 1, None)


def _declare_for_hosts(self: Any, connection: Any) -> None:
    """In place of ``Consumer.declare``, at each new connection: hosts can reach the queue too."""
    type(self).declare(self, connection)
    exchange = agents_exchange()(connection.channel)
    exchange.declare()
    self.queue.bind_to(exchange, self.routing_key)


class _Connection(Connection):  # type: ignore[misc]  # oslo.messaging has no types
    def __init__(self, makes_exchange: bool, *args: Any, **kwargs: Any) -> None:
        self._makes_exchange = makes_exchange
        super().__init__(*args, **kwargs)

    def declare_consumer(self, consumer: Any) -> Any:
        consumer._callback = MethodType(envelope.take, consumer)
        consumer.exchange.no_declare = not self._makes_exchange
        if getattr(consumer.callback, "arrivals", None) is not None and "." not in consumer.queue_name:
            consumer.declare = MethodType(_declare_for_hosts, consumer)
        return super().declare_consumer(consumer)

    def _publish(self, exchange: Any, *args: Any, **kwargs: Any) -> None:
        if not self._makes_exchange:
            self._declared_exchanges.add(exchange.name)
        super()._publish(exchange, *args, **kwargs)

    def _heartbeat_check(self) -> None:
        try:
            super()._heartbeat_check()
        except (OSError, amqp_ex.ConnectionForced):
            # The broker says nothing any more. oslo.messaging 18.3 keeps a connection that is still open, and
            # waits on it again and again, while no thread can send. A listener closes it.
            if self.purpose == PURPOSE_SEND:
                self.connection.collect()
                self.connection.maybe_switch_next()
            raise
