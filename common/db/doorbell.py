"""Hear at once that there is work, by PostgreSQL's LISTEN; the pace of whoever does it is the net below."""

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


class Doorbell(threading.Thread):
    """Has ``ring`` called for each notification on a channel, and whenever some may have been missed."""

    def __init__(self, engine: sa.Engine, channel: str, ring: Callable[[], None]) -> None:
        super().__init__(name=f"doorbell {channel}", daemon=True)
        self._engine = engine
        self._channel = channel
        self._ring = ring
        self._ending = threading.Event()
        self._end_is_read, self._end_is_written = os.pipe()

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                self._listen()
            except (psycopg2.Error, sa.exc.SQLAlchemyError) as error:
                LOG.info("listens again in %s s: %s", _PAUSE, error)
                self._ending.wait(_PAUSE)

    def end(self) -> None:
        """Listen no more, and return."""
        self._ending.set()
        os.write(self._end_is_written, b".")
        if self.is_alive():
            self.join()
        os.close(self._end_is_written)
        os.close(self._end_is_read)

    def _listen(self) -> None:
        lent = self._engine.raw_connection()
        driver: Any = lent.dbapi_connection
        lent.detach()  # it is busy for ever, and no other's
        try:
            driver.autocommit = True
            with driver.cursor() as cursor:
                cursor.execute(f"LISTEN {self._channel}")
            self._ring()
            while not self._ending.is_set():
                select.select([driver, self._end_is_read], [], [])
                driver.poll()
                if driver.notifies:
                    driver.notifies.clear()
                    self._ring()
        finally:
            lent.close()
