"""Totals of the fleet over time: a bounded series that each API process keeps for itself."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import sqlalchemy as sa
from pydantic import Field

from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.rpc.fields import Message
from portclaim.services.api.events import EventFeed

LOG = logging.getLogger(__name__)

INTERVAL = 10.0  # seconds
MOST = 360  # samples: an hour

# It reads ports, not VFs: these are counted for each port already.
_SAMPLE = sa.text("""
    WITH host AS MATERIALIZED (
        SELECT id FROM compute_nodes
         WHERE disabled_reason IS NULL AND last_seen >= now() - make_interval(secs => :agent_down_after)
    )
    SELECT to_char(now(), 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS at, pfs.*, vfs.*, queue.*
      FROM (SELECT count(*) FILTER (WHERE status = 'available' AND host.id IS NOT NULL) AS free_pfs,
                   count(*) FILTER (WHERE NOT unheld) AS held_pfs
              FROM pci_devices d LEFT JOIN host ON host.id = d.compute_node_id
             WHERE parent_id IS NULL AND dev_type = 'type-PF') pfs
     CROSS JOIN (SELECT coalesce(sum(free) FILTER (WHERE host.id IS NOT NULL), 0)::bigint AS free_vfs,
                        coalesce(sum(held), 0)::bigint AS held_vfs
                   FROM (SELECT compute_node_id, sum(free) AS free, max(held) AS held
                           FROM port_pools GROUP BY port_id, compute_node_id) port
                   LEFT JOIN host ON host.id = port.compute_node_id) vfs
     CROSS JOIN (SELECT count(*) AS waiting
                   FROM (SELECT FROM claims WHERE status = 'waiting' LIMIT 10000) read) queue
""")
_PLAN = sa.text("SET LOCAL enable_seqscan = on")


class Sample(Message):
    """The fleet at one moment. Drained and silent hosts have nothing free."""

    at: str = Field(description="When, ISO 8601.")
    free_pfs: int = Field(description="Ports that are free as a whole.")
    held_pfs: int = Field(description="Ports that claims hold as a whole.")
    free_vfs: int = Field(description="VFs that are free.")
    held_vfs: int = Field(description="VFs that claims hold.")
    waiting: int = Field(description="Claims that wait in queues. 10000: so many or more.")


class Samples(Message):
    """What the API process that answers has kept."""

    interval: float = Field(description="Seconds between two samples.")
    most: int = Field(description="How many samples are kept at most.")
    samples: list[Sample] = Field(description="The oldest first.")


class Totals:
    """Takes a sample every ``INTERVAL`` seconds until the API stops. For one event loop."""

    def __init__(
        self, engine: sa.Engine, feed: EventFeed, threads: ThreadPoolExecutor, agent_down_after: float
    ) -> None:
        self._engine = engine
        self._feed = feed
        self._threads = threads
        self._facts = {"agent_down_after": agent_down_after}
        self._samples: deque[Sample] = deque(maxlen=MOST)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. Call it in the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def samples(self) -> Samples:
        """What is kept."""
        return Samples(interval=INTERVAL, most=MOST, samples=list(self._samples))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._feed.ending.is_set():
            try:
                self._samples.append(await loop.run_in_executor(self._threads, self._take))
            except (ServiceUnavailable, sa.exc.SQLAlchemyError, RuntimeError) as error:
                LOG.warning("the totals have a gap: %s", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._feed.ending.wait(), INTERVAL)

    def _take(self) -> Sample:
        return in_transaction(self._engine, self._read)

    def _read(self, connection: sa.Connection) -> Sample:
        connection.execute(_PLAN)
        return Sample(**connection.execute(_SAMPLE, self._facts).mappings().one())
