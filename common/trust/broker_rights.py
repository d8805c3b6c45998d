"""What each user of RabbitMQ may do: the least with which its program works.

RabbitMQ compares the names of queues and exchanges with three regular expressions: ``configure`` (make and
delete), ``write`` (publish to an exchange, bind a queue) and ``read`` (consume, bind to an exchange). For a
topic exchange it also compares the routing key: with ``write`` of a message, with ``read`` of a binding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from portclaim.common.rpc.bounded_connection import reply_queue_prefix
from portclaim.common.rpc.host_exchange import AGENTS, FROM_HOST, HOST_USER, exchange_of_host
from portclaim.common.rpc.transport import EXCHANGE

Role = Literal["host", "conductor", "scheduler", "api", "claimer", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)

EVENTS = "portclaim.events"
_NOTHING = "^$"


class Topic(NamedTuple):
    """Which routing keys a user may publish with, and bind with."""

    write: str
    read: str


class Rights(NamedTuple):
    """The permissions of a user in a virtual host."""

    configure: str
    write: str
    read: str
    topics: Mapping[str, Topic]
    own_exchange: str | None = None  # only this user can publish to it


def user_of(role: Role, name: str) -> str:
    """The name of a user: ``host-compute-7``, ``conductor`` or ``claimer-web``."""
    if role == "host":
        return HOST_USER + name
    return role if name == role else f"{role}-{name}"


def rights_of(role: Role, name: str, user: str) -> Rights:
    """The rights of a user. ``name``: that of the host; other roles do not need it."""
    replies = re.escape(reply_queue_prefix(user)) + "[0-9a-f]+"
    if role == "host":
        own = rf"compute_agent\.{re.escape(name)}"
        exchange = exchange_of_host(name)
        return Rights(
            _any(own, replies),
            _any(own, replies, re.escape(exchange)),
            _any(own, replies, EXCHANGE),
            {
                exchange: Topic(_any("conductor", "conductor_reports", "conductor_life"), _NOTHING),
                EXCHANGE: Topic(_NOTHING, _any(own)),
                EVENTS: Topic(_NOTHING, _NOTHING),
            },
            exchange,
        )
    if role in {"conductor", "scheduler"}:
        own = rf"{role}(_[a-z]+)?(\..+)?"
        of_agents = [re.escape(AGENTS)] if role == "conductor" else []
        of_hosts = [re.escape(FROM_HOST) + ".+"] if role == "conductor" else []
        return Rights(
            _any(own, replies, EXCHANGE, re.escape(EVENTS), *of_agents),
            _any(own, replies, EXCHANGE, re.escape(EVENTS), r"amq\.default", *of_agents),
            _any(own, replies, EXCHANGE, *of_agents, *of_hosts),
            {
                EXCHANGE: Topic(_any(own, r"compute_agent\..+"), _any(own)),
                EVENTS: Topic(".*" if role == "conductor" else _NOTHING, _NOTHING),
            },
        )
    # A stream of events has a queue of its own, which RabbitMQ names, or an operator.
    streams = [r"amq\.gen.*"] + ([re.escape(EVENTS) + r"\..+"] if role == "operator" else [])
    called = {
        "claimer": ["scheduler"],
        "api": ["scheduler", "scheduler_operators"],
        "operator": ["(scheduler|conductor)(_operators)?(\\..+)?", r"compute_agent\..+"],
    }
    return Rights(
        _any(replies, *streams),
        _any(replies, *streams, EXCHANGE),
        _any(replies, *streams, re.escape(EVENTS)),
        {EXCHANGE: Topic(_any(*called[role]), _NOTHING), EVENTS: Topic(_NOTHING, ".*")},
    )


def _any(*patterns: str) -> str:
    return f"^({'|'.join(patterns)})$"
