"""What a service says when it starts if somebody could listen to it, or speak in the name of a host."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator
from pathlib import Path

from oslo_config import cfg

from portclaim.common.events import broker
from portclaim.common.rpc.bus_url import bus_url
from portclaim.common.secret_urls import has_password


def warnings(conf: cfg.ConfigOpts, service: str) -> list[str]:
    """A line for each thing that an operator should know. ``service``: the name of its package."""
    found = []
    url = bus_url(conf)
    if url.transport == "rabbit" and not broker.is_encrypted(conf):
        far = sorted({host.hostname for host in url.hosts if not _is_here(host.hostname)})
        if far:
            found.append(
                f"the connection to RabbitMQ at {', '.join(far)} is not encrypted: set "
                "[oslo_messaging_rabbit] ssl and ssl_ca_file"
            )
    found += [
        f"everybody on this machine can read {file}, which has {what}: chmod o= {file}"
        for file, what in _secret_files(conf, service)
        if _is_open(file)
    ]
    if service in {"conductor", "compute_agent"} and conf.trust.require == "off":
        found.append(
            "[trust] require = off: signatures are not checked, and whoever can write to the message bus can "
            "speak for every host"
        )
    return found


def _secret_files(conf: cfg.ConfigOpts, service: str) -> Iterator[tuple[str, str]]:
    """The files that have secrets, and which. Not those of keys: a service does not take an open one."""
    for file in conf.config_file or ():
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(file, sections).parse()
        if any(
            name == "password" or has_password(value)
            for section in sections.values()
            for name, values in section.items()
            for value in values
        ):
            yield file, "a password"
    if service == "compute_agent" and conf.compute_agent.enrolment_token_file:
        yield conf.compute_agent.enrolment_token_file, "the token of the enrolment"


def _is_open(file: str) -> bool:
    """Whether every user of the machine can read the file. One that is not there is not."""
    try:
        return bool(Path(file).stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _is_here(host: str | None) -> bool:
    """Whether the broker is on this machine."""
    if host in {None, "", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False
