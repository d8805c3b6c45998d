"""The map of the fleet in memory: read once, kept up while somebody looks, and shared by all who look.

A viewer costs what it costs to write to its connection: every message is made once for all.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import sqlalchemy as sa

from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import ServiceUnavailable
from portclaim.services.api import map_rows
from portclaim.services.api.events import EventFeed
from portclaim.services.api.map_changes import Changes
from portclaim.services.api.problems import Busy

LOG = logging.getLogger(__name__)

PAUSE = 0.1  # seconds between two looks for changes while somebody looks at the map
PAUSE_FOR_EACH = 0.0004  # seconds for each viewer, if that is longer: to write to so many takes time
HOSTS_PAUSE = 1.0  # seconds between two looks at the hosts and at what is reserved
_AWAY = 2.0  # seconds until the next look when the database does not answer
_LONG = 30.0  # seconds without a look after which all is read again, rather than so many changes
_REFRESH = 300.0  # seconds until everything is read again
_MANY = 4000  # from so many changed ports on, all are read
_KEPT = 600  # messages that a viewer may be behind


class Sent(NamedTuple):
    """A message for viewers, and the version of the map that they have after it."""

    version: int
    part: bytes
    """The message as a server-sent event."""


class _Read(NamedTuple):
    """What a look has found. None: it has not looked at it."""

    hosts: dict[int, map_rows.HostRow] | None
    counts: dict[str, int] | None
    ports: dict[int, map_rows.PortRow | None]
    is_everything: bool
    claim_ids: set[UUID]
    queues: bool
    more: bool


class FleetMap:
    """The map and its changes. All methods but those of the reading thread are for one event loop."""

    def __init__(self, engine: sa.Engine, feed: EventFeed, agent_down_after: float, most: int) -> None:
        self.epoch = uuid4().hex[:12]
        self.threads = ThreadPoolExecutor(1, thread_name_prefix="api-map")
        self._engine = engine
        self._feed = feed
        self._agent_down_after = agent_down_after
        self._most = most
        self._viewers: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None
        self._loaded = asyncio.Event()
        self._version = 0
        self._sent: deque[Sent] = deque(maxlen=_KEPT)
        self._whole: Sent | None = None
        self._ports: dict[int, map_rows.PortRow] = {}
        self._hosts: dict[int, map_rows.HostRow] = {}
        self._pools: dict[int, dict[str, Any]] = {}
        self._counts: dict[str, int] = {}
        self._reserved: set[map_rows.Reserved] = set()
        self._changes: Changes | None = None
        self._hosts_due = self._refresh_due = self._looked = 0.0

    @asynccontextmanager
    async def viewing(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set when there are messages. Raises :class:`Busy` if too many look."""
        if len(self._viewers) >= self._most:
            raise Busy("too many look at the map: repeat the request later")
        news = asyncio.Event()
        self._viewers.add(news)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch())
        try:
            await self._loaded.wait()
            yield news
        finally:
            self._viewers.discard(news)

    def messages(self, after: int | None) -> list[Sent]:
        """What somebody who has this version needs. None: has nothing."""
        if after == self._version:
            return []
        if after is None or not self._sent or after < self._sent[0].version - 1 or after > self._version:
            return [self._everything()]
        return [each for each in self._sent if each.version > after]

    def end(self) -> None:
        """End all views, because the API stops. Call it in the event loop."""
        self._loaded.set()
        for news in self._viewers:
            news.set()

    def close(self) -> None:
        """End the thread."""
        self.threads.shutdown()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._loaded.clear()
        if time.monotonic() > self._looked + _LONG:
            self._changes = None
        try:
            while self._viewers and not self._feed.ending.is_set():
                try:
                    found = await loop.run_in_executor(self.threads, self._look)
                except (ServiceUnavailable, sa.exc.SQLAlchemyError) as error:
                    LOG.warning("the map is not kept up for now: %s", error)
                    self._refresh_due = 0.0
                    await self._pause(_AWAY)
                    continue
                self._take(found)
                self._loaded.set()
                if not found.more:
                    await self._pause(max(PAUSE, len(self._viewers) * PAUSE_FOR_EACH))
        finally:
            self._task = None
            if self._viewers and not self._feed.ending.is_set():  # one came while the last one left
                self._task = loop.create_task(self._watch())

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._feed.ending.wait(), seconds)

    # In a thread, one at a time.

    def _look(self) -> _Read:
        return in_transaction(self._engine, self._read)

    def _read(self, connection: sa.Connection) -> _Read:
        now = time.monotonic()
        is_everything = self._changes is None or now >= self._refresh_due
        if self._changes is None:
            self._changes = Changes(connection)
        changed = self._changes.look(connection)
        ids = set(changed.port_ids)
        hosts = counts = None
        if now >= self._hosts_due or is_everything:
            hosts = map_rows.hosts(connection, self._agent_down_after)
            counts = map_rows.counts(connection)
            reserved = map_rows.reserved(connection)
            ids |= {each.port_id for each in reserved ^ self._reserved}
            self._reserved = reserved
            self._hosts_due = now + HOSTS_PAUSE
        is_everything = is_everything or len(ids) > _MANY
        ports: dict[int, map_rows.PortRow | None] = dict.fromkeys(ids)
        if is_everything or ids:
            ports |= map_rows.ports(connection, None if is_everything else ids)
            if any(pool not in self._pools for row in ports.values() if row for pool in row[4]):
                self._pools = map_rows.pools(connection)
        if hosts is None and any(row[1] not in self._hosts for row in ports.values() if row):
            hosts = map_rows.hosts(connection, self._agent_down_after)
        if is_everything:
            self._refresh_due = now + _REFRESH
        self._looked = now
        return _Read(hosts, counts, ports, is_everything, *changed[1:])

    # In the event loop.

    def _take(self, read: _Read) -> None:
        ports = [row for row in read.ports.values() if row is not None and row != self._ports.get(row[0])]
        gone_ports = [
            port_id for port_id, row in read.ports.items() if row is None and port_id in self._ports
        ]
        if read.is_everything:
            gone_ports = [port_id for port_id in self._ports if read.ports.get(port_id) is None]
        hosts, gone_hosts = [], []
        if read.hosts is not None:
            hosts = [row for row in read.hosts.values() if row != self._hosts.get(row[0])]
            gone_hosts = [host_id for host_id in self._hosts if host_id not in read.hosts]
            self._hosts = read.hosts
        for port_id in gone_ports:
            del self._ports[port_id]
        self._ports |= {row[0]: row for row in ports}
        is_counted = read.counts is not None and read.counts != self._counts
        if read.counts is not None:
            self._counts = read.counts
        if self._version and not (ports or hosts or gone_ports or gone_hosts or read.claim_ids or is_counted):
            return
        self._version += 1
        self._whole = None
        self._sent.append(
            self._message(
                hosts,
                ports,
                gone_hosts=gone_hosts,
                gone_ports=gone_ports,
                claims=[str(claim_id) for claim_id in read.claim_ids],
                queues=read.queues,
            )
        )
        for news in self._viewers:
            news.set()

    def _everything(self) -> Sent:
        if self._whole is None:
            rows = sorted(self._ports.values(), key=lambda row: (row[1], row[2]))
            self._whole = self._message(self._hosts.values(), rows, whole=True)
        return self._whole

    def _message(
        self, hosts: Iterable[map_rows.HostRow], ports: Iterable[map_rows.PortRow], **more: Any
    ) -> Sent:
        facts = {
            "hosts": list(hosts),
            "ports": list(ports),
            "counts": self._counts,
            "pools": list(self._pools.values()),
            **more,
        }
        data = json.dumps(facts, separators=(",", ":"))
        return Sent(self._version, f"id: {self.epoch}.{self._version}\nevent: map\ndata: {data}\n\n".encode())
