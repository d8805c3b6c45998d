"""Each host's own exchange at the broker: what comes through its user has sent it.

The permissions at the broker let a host publish to ``portclaim.from.<host>`` only. That exchange is bound to
``portclaim.agents``, to which the conductors' queues are bound. So a conductor knows the sender of a message
before it reads the message. It can also unbind the exchange of a host that sends too much: then the broker
drops what this host sends, and nobody else's messages wait behind it.

``portclaim broker grant`` makes these exchanges. They outlive a restart of the broker.
"""

from __future__ import annotations

import kombu
from oslo_config import cfg

from portclaim.common.rpc.bus_url import bus_url

AGENTS = "portclaim.agents"
FROM_HOST = "portclaim.from."
HOST_USER = "host-"

ALL = "#"
"""The routing key of the binding between the two exchanges."""


def exchange_of_host(host: str) -> str:
    """The exchange that only this host can publish to."""
    return FROM_HOST + host


def host_of_exchange(exchange: str) -> str | None:
    """The host whose exchange this is; None: it is no host's."""
    return exchange.removeprefix(FROM_HOST) if exchange.startswith(FROM_HOST) else None


def own_exchange(conf: cfg.ConfigOpts) -> str | None:
    """The exchange of this host; None: its user at the broker is not one of `portclaim broker grant`."""
    users = {host.username for host in bus_url(conf).hosts}
    return exchange_of_host(conf.host) if users == {HOST_USER + conf.host} else None


def agents_exchange() -> kombu.Exchange:
    """The exchange through which the messages of all hosts come to the conductors."""
    return kombu.Exchange(AGENTS, type="topic", durable=True)
