"""Answers that many callers ask for at the same time: read once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from cachetools import TTLCache

T = TypeVar("T")

PAUSE = 0.2
"""Seconds between the beginnings of two reads of the same."""

_MOST = 1000  # questions that are remembered


class SharedAnswers:
    """Reads the same thing at most every ``PAUSE`` seconds, however many ask for it. For one event loop.

    Nobody gets an answer that is older than the question: whoever asks while a read runs gets the next one.
    """

    def __init__(self, pause: float = PAUSE) -> None:
        self._pause = pause
        self._due: dict[Hashable, asyncio.Task[Any]] = {}  # reads that have not begun
        self._begun: TTLCache[Hashable, float] = TTLCache(_MOST, pause)

    async def get(self, question: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What ``read`` answers or raises, for all who ask the same before it begins."""
        task: asyncio.Task[T] | None = self._due.get(question)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._read(question, read))
            task.add_done_callback(_looked_at)
            self._due[question] = task
        return await asyncio.shield(task)  # one caller may go; the others still want it

    async def _read(self, question: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        try:
            loop = asyncio.get_running_loop()
            begun = self._begun.get(question)
            if begun is not None:
                await asyncio.sleep(max(begun + self._pause - loop.time(), 0))
            self._begun[question] = loop.time()
        finally:
            del self._due[question]
        return await read()


def _looked_at(task: asyncio.Task[Any]) -> None:
    """All who asked may have gone: then nobody else looks at an error."""
    if not task.cancelled():
        task.exception()
