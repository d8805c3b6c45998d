"""Connections to RabbitMQ for events. kombu makes them with oslo.messaging's options."""

from __future__ import annotations

import ssl
from typing import Any

import kombu
import oslo_messaging
from oslo_config import cfg
from oslo_messaging._drivers.amqp import amqp_opts
from oslo_messaging._drivers.common import ConfigOptsProxy
from oslo_messaging._drivers.impl_rabbit import rabbit_opts

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.rpc.bus_url import bus_url

EXCHANGE = kombu.Exchange("portclaim.events", type="topic", durable=True, delivery_mode="persistent")
MADE_BEFORE = kombu.Exchange(
    "portclaim.events", type="topic", durable=True, delivery_mode="persistent", no_declare=True
)
"""The same for consumers, who need not have the right to make it."""

CONNECT_TIMEOUT = 5.0  # seconds, for each host of the broker
_SECTION = "oslo_messaging_rabbit"
_PORT = 5672


def connection(conf: cfg.ConfigOpts, *, heartbeat: bool, **options: Any) -> kombu.Connection:
    """A connection to the broker of ``[DEFAULT] transport_url``. It connects when it is first used.

    For ``fake://`` it is kombu's in-memory transport. ``options`` are kombu's transport options. Raises
    :class:`InvalidConfiguration` for any other message bus.
    """
    url = bus_url(conf)
    if is_within_this_process(conf):
        return kombu.Connection("memory://", transport_options={"polling_interval": 0.05})
    if url.transport != "rabbit":
        raise InvalidConfiguration(
            f"events need RabbitMQ, but [DEFAULT] transport_url begins with {url.transport}://. Use "
            "rabbit://, or set [conductor] publish_events = false"
        )
    rabbit = _rabbit(conf, url)
    hosts = url.hosts or [oslo_messaging.TransportHost("localhost", _PORT, "guest", "guest")]
    return kombu.Connection(
        [_amqp(host, url.virtual_host or "") for host in hosts],
        heartbeat=rabbit.heartbeat_timeout_threshold if heartbeat else 0,
        ssl=_ssl(rabbit, [host.hostname for host in hosts]) if rabbit.ssl else False,
        connect_timeout=CONNECT_TIMEOUT,
        # Each node once. A random next node, which oslo.messaging needs, may be the same one again.
        failover_strategy="round-robin",
        transport_options=options,
    )


def is_within_this_process(conf: cfg.ConfigOpts) -> bool:
    """Whether the bus is ``fake://``, which no other process reaches."""
    return bool(bus_url(conf).transport == "fake")


def queue_type(conf: cfg.ConfigOpts) -> str:
    """The type of a durable queue, the same as of oslo.messaging's queues: ``classic`` or ``quorum``."""
    return "quorum" if _rabbit(conf, bus_url(conf)).rabbit_quorum_queue else "classic"


def is_encrypted(conf: cfg.ConfigOpts) -> bool:
    """Whether connections to RabbitMQ use TLS."""
    return bool(_rabbit(conf, bus_url(conf)).ssl)


def topic_queue(conf: cfg.ConfigOpts, topic: str, lifetime: float) -> kombu.Queue:
    """The queue of a topic of oslo.messaging, on its exchange.

    It drops messages that nobody has taken for ``lifetime`` seconds.
    """
    rabbit = _rabbit(conf, bus_url(conf))
    durable = bool(rabbit.amqp_durable_queues or rabbit.rabbit_quorum_queue)
    lasting = {"durable": durable, "auto_delete": rabbit.amqp_auto_delete}
    return kombu.Queue(
        topic,
        exchange=kombu.Exchange(conf.control_exchange, type="topic", **lasting),
        routing_key=topic,
        message_ttl=lifetime,
        queue_arguments={"x-queue-type": queue_type(conf)},
        **lasting,
    )


def has_second_keys(connection: kombu.Connection) -> bool:
    """Whether the broker also routes by the keys in the header ``CC``. The in-memory transport does not."""
    return str(connection.transport_cls) != "memory"


def reach(connection: kombu.Connection) -> None:
    """Connect to the first host of the broker that answers, unless it is connected already."""
    hosts = len(connection.alt or ["the only one"])
    connection.ensure_connection(max_retries=hosts - 1, interval_start=0, interval_step=0)


def faults(connection: kombu.Connection) -> tuple[type[BaseException], ...]:
    """The exceptions that kombu raises when the broker does not answer or refuses an operation."""
    return (
        kombu.exceptions.OperationalError,
        *connection.connection_errors,
        *connection.channel_errors,
    )


def _rabbit(conf: cfg.ConfigOpts, url: oslo_messaging.TransportURL) -> Any:
    """oslo.messaging's options. Options in the query of the URL take precedence."""
    conf.register_opts([*rabbit_opts, *amqp_opts], group=_SECTION)
    return ConfigOptsProxy(conf, url, _SECTION)[_SECTION]


def _amqp(host: oslo_messaging.TransportHost, virtual_host: str) -> str:
    amqp = kombu.Connection(
        transport="pyamqp",
        hostname=host.hostname,
        port=host.port or _PORT,
        userid=host.username or None,
        password=host.password or None,
        virtual_host=virtual_host,
    )
    return str(amqp.as_uri(include_password=True))


def _ssl(rabbit: Any, hosts: list[str]) -> dict[str, Any] | bool:
    """TLS as in oslo.messaging: the broker's certificate is verified only if ``ssl_ca_file`` is set."""
    given = {
        "keyfile": rabbit.ssl_key_file,
        "certfile": rabbit.ssl_cert_file,
        "ca_certs": rabbit.ssl_ca_file,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value}
    if rabbit.ssl_ca_file:
        options["cert_reqs"] = ssl.CERT_REQUIRED
        options["server_hostname"] = hosts[0] if len(hosts) == 1 else None
    return options or True
