"""Events of claims and devices from the database, in their order and without a gap, and who waits for them.

Ids are not committed in their order: a higher id may be visible before a lower one. A reader stops before an
id that is missing until every transaction that may still commit it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.events import schema
from portclaim.services.api.problems import Busy

LOG = logging.getLogger(__name__)

BATCH = 200
PAUSE = 0.2  # seconds between two looks for new events while somebody waits for them
_AWAY = 2.0  # seconds until the next look when the database does not answer
_BACK = 200  # ids before the newest one, among which a lower one may still be missing

_A_LATER_TRANSACTION = sa.text("SELECT pg_current_xact_id()::text")


_READ = """
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS oldest, e.*
      FROM (SELECT) AS always
      LEFT JOIN LATERAL {kind}_events_after(:after, :limit) e ON true
"""
_NEWEST = """
    WITH newest AS (SELECT coalesce(max(id), 0) AS id FROM {kind}_events),
    recent AS (SELECT id FROM {kind}_events WHERE id > (SELECT id FROM newest) - :back)
    SELECT coalesce((SELECT min(id) FROM recent
                      WHERE id < newest.id AND NOT EXISTS (SELECT FROM recent r WHERE r.id = recent.id + 1)),
                    newest.id)
      FROM newest
"""


class Log(NamedTuple):
    """Recorded events of a kind: how to read them after an id, and from which id on they are news."""

    kind: str
    read: sa.TextClause
    newest: sa.TextClause

    @classmethod
    def of(cls, kind: str) -> Log:
        return cls(kind, sa.text(_READ.format(kind=kind)), sa.text(_NEWEST.format(kind=kind)))


CLAIMS = Log.of("claim")
DEVICES = Log.of("device")


class Recorded(NamedTuple):
    """An event: its id, the project of its claim (a device has none), and its JSON as consumers get it."""

    id: int
    project: str | None
    body: str

    def event(self) -> schema.Event:
        return schema.read(self.body)


class EventReader:
    """Reads the events after ``after``, a batch at a time. For one thread at a time."""

    def __init__(self, engine: sa.Engine, after: int, log: Log = CLAIMS) -> None:
        self._engine = engine
        self._log = log
        self._last = after
        self._gap: tuple[int, int] | None = None  # up to this id there are gaps until this transaction ends

    @staticmethod
    def newest(engine: sa.Engine, log: Log = CLAIMS) -> int:
        """An id to start after: the newest, or if lower ones may still be missing, the last before these."""
        found: int = in_transaction(engine, lambda c: c.scalar(log.newest, {"back": _BACK}) or 0)
        return found

    def read(self) -> list[Recorded]:
        """The events that come next. Raises :class:`ServiceUnavailable`."""
        found, self._gap = in_transaction(self._engine, self._read)
        if found:
            self._last = found[-1].id
        return found

    def _read(self, connection: sa.Connection) -> tuple[list[Recorded], tuple[int, int] | None]:
        rows = connection.execute(self._log.read, {"after": self._last, "limit": BATCH}).all()
        found = [Recorded(row.id, row.project, row.body) for row in rows if row.id is not None]
        gap, last = self._gap, self._last
        if gap is not None and int(rows[0].oldest) > gap[1]:  # what is missing up to here never comes
            last, gap = max(last, gap[0]), None
        for place, event in enumerate(found):
            if event.id > last + 1:
                if gap is None:
                    gap = found[-1].id, int(connection.scalar(_A_LATER_TRANSACTION) or 0)
                return found[:place], gap
            last = max(last, event.id)
        return found, gap


class EventFeed:
    """Looks for new events while somebody listens, and wakes those whom they concern. For one event loop."""

    def __init__(self, engine: sa.Engine, max_listeners: int, log: Log = CLAIMS) -> None:
        self.engine = engine
        self.log = log
        self.threads = ThreadPoolExecutor(2, thread_name_prefix="api-events")
        self._most = max_listeners
        self._listeners = 0
        self._wanted: defaultdict[UUID | None, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self.ending = asyncio.Event()

    @asynccontextmanager
    async def listening(self, claim_id: UUID | None) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the claim (None: any claim) changes. Nothing is missed in the block.

        Raises :class:`Busy` if too many listen.
        """
        if self._listeners >= self._most:
            raise Busy("too many requests wait for events: repeat the request later")
        self._listeners += 1
        news = asyncio.Event()
        self._wanted[claim_id].add(news)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch())
        try:
            await self._started.wait()
            yield news
        finally:
            self._wanted[claim_id].discard(news)
            if not self._wanted[claim_id]:
                del self._wanted[claim_id]
            self._listeners -= 1

    def end(self) -> None:
        """End all waits, because the API stops. Call it in the event loop."""
        self.ending.set()
        self._started.set()
        for waiting in list(self._wanted.values()):
            for news in waiting:
                news.set()

    def close(self) -> None:
        """End the threads."""
        self.threads.shutdown()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        reader: EventReader | None = None
        try:
            while self._listeners and not self.ending.is_set():
                try:
                    if reader is None:
                        start = await loop.run_in_executor(
                            self.threads, EventReader.newest, self.engine, self.log
                        )
                        reader = EventReader(self.engine, start, self.log)
                    self._started.set()
                    found = await loop.run_in_executor(self.threads, reader.read)
                except (ServiceUnavailable, sa.exc.SQLAlchemyError) as error:
                    LOG.warning("events are not read for now: %s", error)
                    self._started.set()  # those who wait look for themselves meanwhile
                    await self._pause(_AWAY)
                    continue
                for event in found:
                    self._tell(event.event().claim_id)
                if len(found) < BATCH:
                    await self._pause(PAUSE)
        finally:
            self._task = None
            self._started.clear()
            if self._listeners and not self.ending.is_set():  # one came while the last one left
                self._task = loop.create_task(self._watch())

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ending.wait(), seconds)

    def _tell(self, claim_id: UUID | None) -> None:
        for of in {claim_id, None}:
            for news in self._wanted.get(of, ()):
                news.set()
