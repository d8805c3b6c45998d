"""The bus: one transport per process, configured as every oslo.messaging program is."""

from __future__ import annotations

import oslo_messaging
from oslo_config import cfg
from oslo_messaging._tracing import client as tracing

EXCHANGE = "portclaim"


def transport(conf: cfg.ConfigOpts) -> oslo_messaging.RPCTransport:
    """The transport that ``[DEFAULT] transport_url`` names, shared by all clients and servers of a process.

    As many connections as threads: a thread that answers needs one, and oslo.messaging complains
    for every reply that has to wait for another's.
    """
    # oslo.messaging 18.3 reads these from the configuration at hand, but registers them on the global one.
    conf.register_opts(tracing.oslo_messaging_tracing, group="oslo_messaging_tracing")
    bus = oslo_messaging.get_rpc_transport(conf, allowed_remote_exmods=["common.errors"])
    conf.set_default("executor_thread_pool_size", conf.rpc.threads)
    conf.set_default("rpc_conn_pool_size", max(conf.rpc.threads, conf.rpc_conn_pool_size))
    conf.set_default("control_exchange", EXCHANGE)
    return bus
