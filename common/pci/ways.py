"""All ways to choose one option at each of several places, and which of them leave nobody short.

Each way is one bit of an integer. The search looks at one of them. If that leaves a subset of the
requests short of devices, all ways that do so are struck out at once, and it looks at another: every
look is the last one, or ends with a subset that none of the rest leaves short. So there are never
more looks than subsets, and mostly a few. A search in vain teaches a lesson: nobody finds a way who
has no more to spare of the subsets that struck out all of them.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from portclaim.common.pci.hall import Subsets

_ASKED_FIRST = 24
"""So many of the subsets that were short last are asked about before the first look."""


_LESSONS_KEPT = 64
"""Asking about so many takes as long as some looks."""

_LOOKS_PER_TABLE = 10
"""Sorting the ways by what a subset loses takes as long as so many looks."""


class OutOfLooks(Exception):
    """Ends a search that may look only so often."""


class Looks:
    """Counts the steps of a search, which may take no more than ``limit`` of them, if there is one."""

    def __init__(self) -> None:
        self.taken = 0
        self.limit: int | None = None

    def count(self, looks: int = 1) -> None:
        """Raises :class:`OutOfLooks`: now, and whenever it goes on."""
        self.taken += looks
        if self.limit is not None and self.taken > self.limit:
            raise OutOfLooks


class Ways:
    """The ways to choose among ``options``: at each place, what each option takes from the surpluses.

    The number of a way's bit is that of its options, read as digits.
    """

    def __init__(self, subsets: Subsets, options: Sequence[Sequence[int]], looks: Looks) -> None:
        self._subsets = subsets
        self._options = options
        self._looks = looks
        self._digits = [
            (takes, math.prod(map(len, options[place:]))) for place, takes in enumerate(options, start=1)
        ]
        middle = len(options) // 2
        self._first_half, self._second_half = _all_sums(options[:middle]), _all_sums(options[middle:])
        self._by_loss: dict[int, tuple[list[int], list[int]]] = {}
        self._short: dict[int, None] = {}  # the subset that was short last is the last
        self._lessons: deque[int] = deque(maxlen=_LESSONS_KEPT)
        self._allowed = 0

    def allow(self, allowed: Sequence[range]) -> None:
        """From now on choose at each place one of the ``allowed`` options."""
        ways = 1
        for options, (_, size) in zip(reversed(allowed), reversed(self._digits), strict=True):
            ways = functools.reduce(operator.or_, (ways << option * size for option in options), 0)
        self._allowed = ways
        self._lessons.clear()

    def find(self, surpluses: int) -> list[int] | None:
        """A way that leaves no subset short, as its option at each place; None: there is none.

        No subset is short before. Raises :class:`OutOfLooks`.
        """
        if any(self._subsets.is_below(surpluses, lesson) for lesson in self._lessons):
            return None
        self._looks.count()
        ways, struck_by = self._allowed, []
        for subset in itertools.islice(reversed(self._short), _ASKED_FIRST):
            rest = ways & self._enough_for(subset, surpluses)
            if rest != ways:
                struck_by.append(subset)
                ways = rest
            if not ways:
                break
        while ways:
            self._looks.count()
            way = ways.bit_length() - 1
            first, second = divmod(way, len(self._second_half))
            left = surpluses - self._first_half[first] - self._second_half[second]
            short = self._subsets.shortest(left)
            if short is None:
                return self._choice(way)
            ways &= self._enough_for(short, surpluses)
            struck_by.append(short)
            self._short.pop(short, None)
            self._short[short] = None
        self._lessons.appendleft(self._subsets.ceiling(surpluses, struck_by))
        return None

    def _choice(self, way: int) -> list[int]:
        choice = []
        for _, size in self._digits:
            option, way = divmod(way, size)
            choice.append(option)
        return choice

    def _enough_for(self, subset: int, surpluses: int) -> int:
        """The ways that do not leave this subset short."""
        if subset not in self._by_loss:
            self._looks.count(_LOOKS_PER_TABLE)
            self._by_loss[subset] = self._sort_by_loss(subset)
        losses, ways = self._by_loss[subset]
        return ways[bisect_right(losses, self._subsets.surplus(surpluses, subset))]

    def _sort_by_loss(self, subset: int) -> tuple[list[int], list[int]]:
        """The numbers that ways can take from a subset, in order; the ways that take none of them,
        at most the first, at most the second, and so on.
        """
        by_loss = {0: 1}
        for takes, size in reversed(self._digits):
            longer: dict[int, int] = {}
            for option, taken in enumerate(takes):
                loss, shift = self._subsets.at(taken, subset), option * size
                for rest, ways in by_loss.items():
                    longer[loss + rest] = longer.get(loss + rest, 0) | ways << shift
            by_loss = longer
        losses = sorted(by_loss)
        return losses, list(itertools.accumulate(map(by_loss.__getitem__, losses), operator.or_, initial=0))


def _all_sums(options: Sequence[Sequence[int]]) -> list[int]:
    """What each way to choose among these takes in all."""
    sums = [0]
    for takes in options:
        sums = [taken + more for taken in sums for more in takes]
    return sums
