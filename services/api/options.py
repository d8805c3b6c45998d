"""The options of the HTTP API."""

from __future__ import annotations

from collections.abc import Sequence

from oslo_config import cfg

GROUP = cfg.OptGroup("api", "The HTTP API")
OPTIONS = [
    cfg.HostAddressOpt(
        "listen", default="127.0.0.1", help="Address to listen on. TLS is for a proxy in front of it."
    ),
    cfg.PortOpt("port", default=9610, help="Port to listen on. 0: any free port."),
    cfg.IntOpt("workers", default=1, min=1, help="Number of worker processes."),
    cfg.StrOpt(
        "connection",
        secret=True,
        help="SQLAlchemy URL of the database, for a user with the role portclaim_api. Default: [database] "
        "connection. Either way the API takes the role portclaim_api, which cannot write claims.",
    ),
    cfg.StrOpt(
        "auth",
        default="tokens",
        choices=[
            ("tokens", "Portclaim's own, of `portclaim token create`"),
            ("keystone", "those of OpenStack Keystone, which [keystone_authtoken] names"),
        ],
        help="Whose tokens callers send.",
    ),
    cfg.DictOpt(
        "keystone_roles",
        default={"reader": "reader", "member": "claimer", "admin": "operator"},
        help="With auth = keystone: which role of Portclaim (reader, claimer or operator) a role of Keystone "
        "gives. A claimer claims for the project of its token, an operator for all projects.",
    ),
    cfg.IntOpt(
        "threads",
        default=16,
        min=1,
        max=100,
        help="Number of calls to other services at the same time, for each worker process.",
    ),
    cfg.IntOpt(
        "max_waiting",
        default=100,
        min=0,
        help="Number of requests that may wait for a thread. More are answered with 503 and Retry-After.",
    ),
    cfg.IntOpt(
        "max_listeners",
        default=1000,
        min=1,
        help="Number of event streams and of requests with wait_for at the same time. They hold no thread.",
    ),
    cfg.IntOpt(
        "max_connections",
        default=4000,
        min=1,
        help="Number of connections at the same time. Requests on more are answered with 503.",
    ),
    cfg.IntOpt("max_body", default=1024 * 1024, min=1024, help="Bytes that the body of a request may have."),
    cfg.FloatOpt(
        "request_timeout",
        default=10.0,
        min=0.1,
        help="Seconds in which the head of a request must arrive, and then its body.",
    ),
    cfg.FloatOpt(
        "stop_timeout", default=5.0, min=0.0, help="Seconds that requests in hand have when the API stops."
    ),
]


def list_opts() -> list[tuple[cfg.OptGroup, Sequence[cfg.Opt]]]:
    """All options, for oslo.config's sample and documentation generators."""
    return [(GROUP, OPTIONS)]
