"""A server that hangs does not hold its callers for ever: an overdue transaction loses its connection.

A deadline that the server keeps (``statement_timeout``) does not help against a server that is stopped, or
that waits at a commit for a standby that is gone. So the client keeps this one.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

LOG = logging.getLogger(__name__)

_SOCKET = "socket"


class Deadline(threading.Thread):
    """Shuts down the connections whose transactions take longer than ``seconds``, or up to twice as long.

    The statement that waits on such a connection fails like one whose connection is lost. A connection is
    watched while the pool has lent it, so a transaction costs two entries in a dictionary and no call.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(name="database deadline", daemon=True)
        self._seconds = seconds
        self._lent: dict[Any, float] = {}
        self._ending = threading.Event()
        self._starting = threading.Lock()
        self._began = False

    def watch(self, engine: sa.Engine) -> None:
        """Watch all connections of ``engine``. Ends when nobody has the engine any more."""
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "checkout", self._lend)
        for name in ("checkin", "invalidate"):
            event.listen(engine, name, self._take_back)
        for name in ("close", "detach"):  # who detaches a connection may wait on it for ever
            event.listen(engine, name, self._forget)
        weakref.finalize(engine, self._ending.set)

    def run(self) -> None:
        while not self._ending.wait(self._seconds):
            overdue = time.monotonic() - self._seconds
            for record, since in list(self._lent.items()):
                if since <= overdue and self._lent.pop(record, None) is not None:
                    self._shut_down(record)

    def _shut_down(self, record: Any) -> None:
        LOG.warning(
            "the database has not finished a transaction in %s s: its connection is given up, and the work "
            "is done again on another",
            self._seconds,
        )
        with suppress(OSError):  # it is closed already
            record.info[_SOCKET].shutdown(socket.SHUT_RDWR)

    def _connected(self, driver: Any, record: Any) -> None:
        # A duplicate: the number of the driver's own would be another file's when the driver has closed it.
        record.info[_SOCKET] = socket.socket(fileno=os.dup(driver.fileno()))

    def _lend(self, _driver: Any, record: Any, _proxy: Any) -> None:
        if not self._began:
            with self._starting:
                if not self._began:  # only now, because a thread does not survive a fork
                    self._began = True
                    self.start()
        self._lent[record] = time.monotonic()

    def _take_back(self, _driver: Any, record: Any, *_error: Any) -> None:
        self._lent.pop(record, None)

    def _forget(self, _driver: Any, record: Any) -> None:
        self._lent.pop(record, None)
        if _SOCKET in record.info:
            record.info.pop(_SOCKET).close()
