"""Wait for NOTIFY on a PostgreSQL channel.

A notification may be lost, so its user also works at intervals.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from typing import Any

import psycopg2
import sqlalchemy as sa

LOG = logging.getLogger(__name__)

_PAUSE = 5.0  # seconds from a lost connection to the next
# A server that hangs sends no notification and no end: after so many seconds of silence, listen anew.
_LONGEST_SILENCE = 300.0


class NotificationListener(threading.Thread):
    """Calls ``on_notify`` for each notification on a channel, and whenever one may have been missed."""

    def __init__(self, engine: sa.Engine, channel: str, on_notify: Callable[[], None]) -> None:
        super().__init__(name=f"listener {channel}", daemon=True)
        self._engine = engine
        self._channel = channel
        self._on_notify = on_notify
        self._ending = threading.Event()
        self._end_is_read, self._end_is_written = os.pipe()

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                self._listen()
            except (psycopg2.Error, sa.exc.SQLAlchemyError) as error:
                LOG.info(
                    "LISTEN %s was interrupted and starts again in %s s: %s", self._channel, _PAUSE, error
                )
                self._ending.wait(_PAUSE)

    def end(self) -> None:
        """Stop listening, and return when the thread has ended."""
        self._ending.set()
        os.write(self._end_is_written, b".")
        if self.is_alive():
            self.join()
        os.close(self._end_is_written)
        os.close(self._end_is_read)

    def _listen(self) -> None:
        connection = self._engine.raw_connection()
        driver: Any = connection.dbapi_connection
        connection.detach()  # this thread keeps it: the pool may open another
        try:
            driver.autocommit = True
            with driver.cursor() as cursor:
                cursor.execute(f"LISTEN {self._channel}")
            self._on_notify()
            while not self._ending.is_set():
                if not any(select.select([driver, self._end_is_read], [], [], _LONGEST_SILENCE)):
                    return
                driver.poll()
                if driver.notifies:
                    driver.notifies.clear()
                    self._on_notify()
        finally:
            driver.close()  # not the pool's: it would roll back first, which fails on a lost connection
