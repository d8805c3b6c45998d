"""Gauges that are looked at every few seconds: connections to the database and to the broker.

They would cost every claim something if they were kept up to date.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from portclaim.common.metrics import catalogue

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.pool import QueuePool

ENGINES: WeakSet[sa.Engine] = WeakSet()
"""The engines of this process."""
SERVERS: WeakSet[Any] = WeakSet()
"""The servers of calls from the bus of this process."""

_PAUSE = 2.0  # seconds
_RECONNECTED = "Reconnected to AMQP server"


def begin() -> None:
    """Look now and then, in a thread, and count lines of the log."""
    threading.Thread(target=_sample_for_ever, name="sampling for metrics", daemon=True).start()
    logging.getLogger().addHandler(_Counting())


def sample() -> None:
    pools = _pools()
    catalogue.POOL_SIZE.set(sum(pool.size() for pool in pools))
    catalogue.POOL_CONNECTIONS.set(sum(pool.checkedout() for pool in pools), "in use")
    catalogue.POOL_CONNECTIONS.set(sum(pool.checkedin() for pool in pools), "idle")
    servers = list(SERVERS)
    catalogue.BUS_CONNECTED.set(bool(servers) and all(map(_is_connected, servers)))


def _pools() -> Sequence[QueuePool]:
    engines = list(ENGINES)
    if not engines:
        return ()
    # Only a service with a database has loaded it: it takes 13 MB.
    from sqlalchemy.pool import QueuePool

    return [engine.pool for engine in engines if isinstance(engine.pool, QueuePool)]


def _sample_for_ever() -> None:
    pause = threading.Event()
    while not pause.wait(_PAUSE):
        sample()


def _is_connected(server: Any) -> bool:
    """Has the server's listener a connection? A bus within the process always has."""
    listener = getattr(server, "listener", None)
    if listener is None:
        return False  # it waits for the broker
    poller = getattr(listener, "_poll_style_listener", None)
    conn = getattr(poller, "conn", None)
    return True if conn is None else bool(conn.connection.connection.connected)


class _Counting(logging.Handler):
    """Counts what is logged. The level is that of the logger: what is not written is not counted."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            catalogue.LOG_RECORDS.count("error")
        elif record.levelno >= logging.WARNING:
            catalogue.LOG_RECORDS.count("warning")
        elif isinstance(record.msg, str) and _RECONNECTED in record.msg:
            catalogue.BUS_RECONNECTS.count()
