"""What a service says when it starts if somebody could listen to it, or speak in the name of a host."""

from __future__ import annotations

import ipaddress

import oslo_messaging
from oslo_config import cfg

from portclaim.common.events import broker


def warnings(conf: cfg.ConfigOpts, service: str) -> list[str]:
    """A line for each thing that an operator should know. ``service``: the name of its package."""
    found = []
    url = oslo_messaging.TransportURL.parse(conf)
    if url.transport == "rabbit" and not broker.is_encrypted(conf):
        far = sorted({host.hostname for host in url.hosts if not _is_here(host.hostname)})
        if far:
            found.append(
                f"the connection to RabbitMQ at {', '.join(far)} is not encrypted: set "
                "[oslo_messaging_rabbit] ssl and ssl_ca_file"
            )
    if service in {"conductor", "compute_agent"} and conf.trust.require == "off":
        found.append(
            "[trust] require = off: signatures are not checked, and whoever can write to the message bus can "
            "speak for every host"
        )
    return found


def _is_here(host: str | None) -> bool:
    """Whether the broker is on this machine."""
    if host in {None, "", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False
