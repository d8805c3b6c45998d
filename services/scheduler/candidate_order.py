"""The order in which claims would take hosts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterable
from itertools import islice
from typing import NamedTuple

from portclaim.services.scheduler.statements import FEW


class Next(NamedTuple):
    """A port or a device in its part of an index. A claim takes the one with the lowest rank."""

    node_id: int
    part: Hashable
    rank: int


def cut_off_at(rows: Iterable[Next], few: int) -> set[Hashable]:
    """The lists that may go on after these rows."""
    return {part for part, count in Counter(row.part for row in rows).items() if count == few}


def in_order(rows: Iterable[Next], cut_off: Collection[Hashable]) -> list[int]:
    """The hosts in the order in which claims would take them, if each claim avoided the hosts before it.

    Such a claim looks at the first few rows of each list and takes the best of them. The order ends where too
    few rows of a list are known.
    """
    lists: dict[Hashable, deque[Next]] = {}
    for row in rows:
        lists.setdefault(row.part, deque()).append(row)
    taken: dict[int, None] = {}
    while True:
        looked_at: list[Next] = []
        for part, waiting in lists.items():
            while waiting and waiting[0].node_id in taken:
                waiting.popleft()
            first = list(islice((row for row in waiting if row.node_id not in taken), FEW))
            if len(first) < FEW and part in cut_off:
                return list(taken)
            looked_at += first
        if not looked_at:
            return list(taken)
        taken[min(looked_at, key=lambda row: row.rank).node_id] = None
