"""The bus: one transport per process, configured as every oslo.messaging program is."""

from __future__ import annotations

import math

import oslo_messaging
from oslo_config import cfg
from oslo_messaging._drivers import amqpdriver
from oslo_messaging._drivers.impl_rabbit import rabbit_opts
from oslo_messaging._metrics.client import oslo_messaging_metrics
from oslo_messaging._tracing.client import oslo_messaging_tracing

EXCHANGE = "portclaim"


def transport(conf: cfg.ConfigOpts) -> oslo_messaging.RPCTransport:
    """The transport that ``[DEFAULT] transport_url`` names; the clients and servers of a process share it."""
    # oslo.messaging 18.3 reads these from the configuration at hand, but registers them on the global one.
    conf.register_opts(oslo_messaging_metrics, group="oslo_messaging_metrics")
    conf.register_opts(oslo_messaging_tracing, group="oslo_messaging_tracing")
    oslo_messaging.set_transport_defaults(EXCHANGE)
    # Nobody waits longer than this for an answer; a thread that offered it for a minute to a caller that is
    # gone would be missing for others, and hold up a graceful stop.
    cfg.set_defaults(rabbit_opts, kombu_missing_consumer_retry_timeout=math.ceil(conf.rpc.timeout))
    # After each message oslo.messaging 18.3 polls again after 1, 2, 4 ... ms, for acknowledgements that wait
    # until somebody comes by. Those of calls do not wait, so that most of a quiet server's time went there.
    amqpdriver.ACK_REQUEUE_EVERY_SECONDS_MIN = 1.0
    # Who could not be answered once would get no answers for a minute, although it may only have lost its
    # connection. What a caller that is really gone has left in the queues is soon used up.
    amqpdriver.ObsoleteReplyQueuesCache.TTL = 1
    return oslo_messaging.get_rpc_transport(conf, allowed_remote_exmods=["portclaim.common.errors"])
