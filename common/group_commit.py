"""What several threads ask for at the same time, done together: in one statement, with one commit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE = 0.1


class GroupCommit(Generic[T, R]):
    """Calls ``work`` with what has been asked for while the last call of it ran. Nobody waits for a group.

    The thread that asks first does the work, for itself alone. What other threads ask for meanwhile is the
    next group, and one of them does its work. So a single caller loses nothing, and the more callers there
    are at once, the larger are the groups. ``work`` answers a result for each of its items, which are in the
    order in which they were asked for, at most ``largest`` of them. ``alike`` tells whether an item can be in
    a group with the first one of it.

    If the work of another group takes longer than ``patience`` seconds, because it waits for a lock in the
    database say, an item that is not in it is worked on alone, beside it.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R]],
        largest: int,
        alike: Callable[[T, T], bool] = lambda _first, _other: True,
        patience: float = _PATIENCE,
    ) -> None:
        self._work = work
        self._largest = largest
        self._alike = alike
        self._patience = patience
        self._lock = threading.Lock()
        self._waiting: deque[_Entry[T, R]] = deque()
        self._is_busy = False

    def __call__(self, item: T) -> R:
        """The result for this item. Raises what ``work`` raises, in all threads of the group."""
        mine: _Entry[T, R] = _Entry(item)
        with self._lock:
            must_wait, self._is_busy = self._is_busy, True
            self._waiting.append(mine)
        if must_wait and not mine.woken.wait(self._patience):
            if self._is_withdrawn(mine):
                return self._work([item])[0]
            mine.woken.wait()
        if not mine.results and mine.error is None:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.results[0]

    def _lead(self) -> None:
        """Do the work of the group that begins with the entry that has waited longest: one's own."""
        group = self._next_group()
        try:
            for entry, result in zip(group, self._work([entry.item for entry in group]), strict=True):
                entry.results = [result]
        except BaseException as error:
            for entry in group:
                entry.error = error
        with self._lock:
            if self._waiting:
                self._waiting[0].woken.set()  # it leads the next group
            else:
                self._is_busy = False
        for entry in group:
            entry.woken.set()

    def _is_withdrawn(self, entry: _Entry[T, R]) -> bool:
        """Take the entry back. False: a group has it, or it leads the next one."""
        with self._lock:
            if entry.woken.is_set() or entry not in self._waiting:
                return False
            self._waiting.remove(entry)
            return True

    def _next_group(self) -> list[_Entry[T, R]]:
        with self._lock:
            first = self._waiting[0].item
            group = [entry for entry in self._waiting if self._alike(first, entry.item)][: self._largest]
            taken = set(map(id, group))
            self._waiting = deque(entry for entry in self._waiting if id(entry) not in taken)
        return group


class _Entry(Generic[T, R]):
    """An item, and what became of it."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.woken = threading.Event()
        self.results: list[R] = []
        self.error: BaseException | None = None
