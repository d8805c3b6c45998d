"""Hosts that flood the conductors are unbound at the broker, which drops what they send from then on."""

from __future__ import annotations

import logging
import threading

from oslo_config import cfg

from portclaim.common.errors import ServiceUnavailable
from portclaim.common.events import broker
from portclaim.common.metrics.catalogue import HOSTS_CUT_OFF
from portclaim.common.rpc.host_exchange import AGENTS, ALL, exchange_of_host

LOG = logging.getLogger(__name__)


class CutOff:
    """Cuts hosts off. It stays so until an operator readmits the host: a host that floods is to be looked at.

    ``note`` may be called by any thread, ``work`` by one.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._connection = broker.connection(conf, heartbeat=False)
        self._lock = threading.Lock()
        self._noted: set[str] = set()

    def note(self, host: str) -> None:
        """The host is to be cut off."""
        with self._lock:
            self._noted.add(host)

    def work(self) -> bool:
        """Cut off the hosts that were noted. They stay noted if it raises ServiceUnavailable.

        It also keeps the connection open: in a flood the broker takes long to open one.
        """
        try:
            try:
                self._cut()
            except broker.faults(self._connection):  # the connection may have ended while it was not used
                self._connection.release()
                self._cut()
        except broker.faults(self._connection) as error:
            self._connection.release()
            if self._hosts():
                raise ServiceUnavailable(f"hosts that flood are not cut off yet: {error}") from error
        return False

    def _cut(self) -> None:
        broker.reach(self._connection)
        for host in self._hosts():
            self._unbind(host)
            with self._lock:
                self._noted.discard(host)

    def _hosts(self) -> list[str]:
        with self._lock:
            return sorted(self._noted)

    def close(self) -> None:
        self._connection.release()

    def _unbind(self, host: str) -> None:
        """Take the host's exchange from that of all hosts. To do it again changes nothing."""
        with self._connection.channel() as channel:
            channel.exchange_unbind(destination=AGENTS, source=exchange_of_host(host), routing_key=ALL)
        HOSTS_CUT_OFF.count()
        LOG.error(
            "host %s is cut off: it floods the conductors, and the broker now drops what it sends. Its "
            "claims stay as they are. Find out why, then let it speak again: portclaim broker readmit %s",
            host,
            host,
        )
