"""The message bus: one transport for each process, with oslo.messaging's own options."""

from __future__ import annotations

import math

import oslo_messaging
from oslo_config import cfg
from oslo_messaging._drivers import amqpdriver
from oslo_messaging._drivers.impl_rabbit import rabbit_opts
from oslo_messaging._metrics.client import oslo_messaging_metrics
from oslo_messaging._tracing.client import oslo_messaging_tracing

from portclaim.common import secret_urls
from portclaim.common.rpc import bounded_connection
from portclaim.common.rpc.bus_url import bus_url

EXCHANGE = "portclaim"

_PREFETCH = 8  # messages that the broker sends ahead: as many as a worker handles at the same time


def transport(conf: cfg.ConfigOpts, *, makes_exchange: bool = True) -> oslo_messaging.RPCTransport:
    """The transport of ``[DEFAULT] transport_url``. The clients and servers of a process share it.

    With ``makes_exchange``, it makes the exchange of the calls if there is none. Whoever may make an exchange
    at the broker may also delete it. So only conductors and schedulers make it.

    It connects when it is first used. Raises :class:`InvalidConfiguration` for an invalid URL.
    """
    # oslo.messaging 18.3 reads these options from this configuration, but registers them on the global one.
    conf.register_opts(oslo_messaging_metrics, group="oslo_messaging_metrics")
    conf.register_opts(oslo_messaging_tracing, group="oslo_messaging_tracing")
    oslo_messaging.set_transport_defaults(EXCHANGE)
    # No caller waits longer than this for an answer. A thread that offered its answer for a minute to a
    # caller that has gone would not be free for other calls, and would delay a graceful stop.
    cfg.set_defaults(rabbit_opts, kombu_missing_consumer_retry_timeout=math.ceil(conf.rpc.timeout))
    # The broker keeps calls that no thread of a worker is free for. Other workers get them, or they expire
    # there when their callers no longer wait. oslo.messaging's default is no limit.
    cfg.set_defaults(rabbit_opts, rabbit_qos_prefetch_count=_PREFETCH)
    # A listener of oslo.messaging 18.3 changes three times to the next node between two attempts to connect.
    # Of three nodes it would try the same one for ever. So the next node is a random one.
    cfg.set_defaults(rabbit_opts, kombu_failover_strategy="shuffle")
    # After each message oslo.messaging 18.3 polls for late acknowledgements after 1, 2, 4 ... ms. Those of
    # calls are never late. The polling took most of the time of a quiet server. A server also takes so long
    # to stop.
    amqpdriver.ACK_REQUEUE_EVERY_SECONDS_MIN = amqpdriver.ACK_REQUEUE_EVERY_SECONDS_MAX = 1.0
    # A caller that could not be answered once would get no answer for a minute, although it may only have
    # lost its connection for a moment. The calls of a caller that has really gone are soon used up.
    amqpdriver.ObsoleteReplyQueuesCache.TTL = 1
    url = bus_url(conf)
    try:
        bus = oslo_messaging.get_rpc_transport(
            conf, url=url, allowed_remote_exmods=["portclaim.common.errors"]
        )
    except oslo_messaging.DriverLoadFailure as error:
        raise secret_urls.bus_is_wrong(f"nobody knows how to speak to {url.transport}://") from error
    bounded_connection.use(bus, makes_exchange=makes_exchange)
    return bus
