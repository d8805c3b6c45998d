"""What the handlers of requests call: the scheduler and the database, with a limit of calls at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from oslo_config import cfg

from portclaim.common.db import transaction
from portclaim.common.rpc.fields import Message
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.services.api.events import DEVICES, EventFeed
from portclaim.services.api.fleet_map import FleetMap
from portclaim.services.api.keystone import KeystoneTokens
from portclaim.services.api.problems import Busy
from portclaim.services.api.shared_answers import SharedAnswers
from portclaim.services.api.totals import Totals

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=Message)

ROLE = "portclaim_api"


def connect(url: str, pool_size: int, answer_within: float = transaction.ANSWER_WITHIN) -> sa.Engine:
    """An engine whose connections have the role of the API, which can write nothing but tokens and quotas."""
    return transaction.connect(
        url,
        pool_size,
        answer_within,
        application_name="portclaim-api",
        more_options=f"-c role={ROLE} -c statement_timeout=10s",
    )


class Backend:
    """Runs what blocks in threads. If too many requests wait for a thread, the next one is refused.

    ``options``: the section ``[api]``. ``agent_down_after``: as ``[conductor]`` has it. ``keystone``: None if
    tokens are Portclaim's own.

    All but :meth:`close` must be called in the event loop.
    """

    def __init__(
        self,
        scheduler: SchedulerClient,
        engine: sa.Engine,
        options: Any,
        agent_down_after: float = 60.0,
        keystone: KeystoneTokens | None = None,
    ) -> None:
        self.keystone = keystone
        self.scheduler = scheduler
        self.options = options
        self._engine = engine
        self._threads = ThreadPoolExecutor(options.threads, thread_name_prefix="api")
        self._most = options.threads + options.max_waiting
        self._running = 0
        self._shared = SharedAnswers()
        self.feed = EventFeed(engine, options.max_listeners)
        self.device_feed = EventFeed(engine, options.max_listeners, DEVICES)
        self.map = FleetMap(engine, self.feed, agent_down_after, options.max_listeners)
        self.totals = Totals(engine, self.feed, self.map.threads, agent_down_after)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function in a thread. Raises :class:`Busy`, and what the function raises."""
        if self._running >= self._most:
            raise Busy("too many requests wait for an answer: repeat the request later")
        loop = asyncio.get_running_loop()
        self._running += 1

        def done(_future: Future[T]) -> None:
            try:
                loop.call_soon_threadsafe(self._free)
            except RuntimeError:  # the loop has ended
                self._free()

        future = self._threads.submit(copy_context().run, partial(function, *args, **kwargs))
        future.add_done_callback(done)
        return await asyncio.wrap_future(future)

    async def query(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in a transaction of the database, in a thread. Raises what :meth:`call` does."""
        return await self.call(transaction.in_transaction, self._engine, work)

    async def shared(self, function: Callable[[M], T], wanted: M) -> T:
        """:meth:`call` for what many ask at the same time: those who ask the same share an answer."""
        question = function.__name__, wanted.model_dump_json()
        return await self._shared.get(question, lambda: self.call(function, wanted))

    def end(self) -> None:
        """End all streams and waits, because the API stops. Call it in the event loop."""
        self.feed.end()
        self.device_feed.end()
        self.map.end()

    def close(self) -> None:
        """Wait for the calls in hand, and close the connections to the database."""
        self._threads.shutdown(cancel_futures=True)
        self.feed.close()
        self.map.close()
        self.device_feed.close()
        self._engine.dispose()

    def _free(self) -> None:
        self._running -= 1


def database_url(conf: cfg.ConfigOpts) -> str | None:
    """The database that the API reads."""
    url: str | None = conf.api.connection or conf.database.connection
    return url
