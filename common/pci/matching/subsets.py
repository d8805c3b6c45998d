"""Hall's condition for all subsets of requests, in one integer.

All requests can be served if and only if every subset of them has at least as many suitable devices as it
asks for (P. Hall, 1935). R requests have 2^R subsets. Their surpluses are fields of one Python integer, so
that one addition changes all of them and one comparison tests all of them. Each field has a guard bit on top,
which is set while the surplus is 0 or more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property


class Subsets:
    """Arithmetic with one number for each subset of ``requests`` requests. No number exceeds ``limit``.

    A set of requests is a mask with one bit per request. The mask is also the number of the subset's field.
    """

    def __init__(self, requests: int, limit: int) -> None:
        self.requests = requests
        self._width = limit.bit_length() + 1
        self._known: dict[int, int] = {}

    @property
    def all_requests(self) -> int:
        """The subset of all requests."""
        return (1 << self.requests) - 1

    @cached_property
    def ones(self) -> int:
        """1 for every subset."""
        return self._double(1, [0] * self.requests)

    @cached_property
    def guards(self) -> int:
        """The guard bit of every subset: a surplus of 0."""
        return self.ones << (self._width - 1)

    def demand(self, counts: Sequence[int]) -> int:
        """How many devices each subset asks for, if request ``i`` asks for ``counts[i]`` devices."""
        return self._double(0, counts)

    def supply(self, mask: int) -> int:
        """1 for each subset with a member in ``mask``: what one device adds that satisfies these requests."""
        known = self._known.get(mask)
        if known is None:
            known = self._known[mask] = self._meeting(mask)
        return known

    def at(self, numbers: int, subset: int) -> int:
        """The number of one subset."""
        return numbers >> (subset * self._width) & ((1 << self._width) - 1)

    def surplus(self, surpluses: int, subset: int) -> int:
        """The surplus of one subset."""
        return self.at(surpluses, subset) - (1 << (self._width - 1))

    def none_short(self, surpluses: int) -> bool:
        """Has every subset a surplus of 0 or more?"""
        return surpluses & self.guards == self.guards

    def shortest(self, surpluses: int) -> int | None:
        """The subset that lacks the most devices, the largest of several; None if no subset lacks any."""
        short = self.guards & ~surpluses
        if not short:
            return None
        missing = short - (surpluses & (short - (short >> (self._width - 1))))
        shortest = short >> (self._width - 1)
        for bit in reversed(range(self._width)):
            shortest = missing >> bit & shortest or shortest
        return (shortest.bit_length() - 1) // self._width

    def ceiling(self, surpluses: int, subsets: Iterable[int]) -> int:
        """A bound for :meth:`is_below`: these surpluses, none of them below 0, for these subsets only."""
        field = (1 << self._width) - 1
        bounded = sum(field << subset * self._width for subset in subsets)
        return (surpluses & bounded) | (self.guards * 2 - self.ones) & ~bounded

    def is_below(self, surpluses: int, ceiling: int) -> bool:
        """Is no surplus, all 0 or more, beyond the ceiling?"""
        return self.none_short(ceiling - (surpluses ^ self.guards))

    def _double(self, first: int, steps: Sequence[int]) -> int:
        """Begin with the empty subset. Each request doubles the subsets; those with it have ``step`` more."""
        numbers, ones, width = first, 1, self._width
        for step in steps:
            numbers |= (numbers + step * ones) << width
            ones |= ones << width
            width *= 2
        return numbers

    def _meeting(self, mask: int) -> int:
        numbers, ones, width = 0, 1, self._width
        for request in range(self.requests):
            numbers |= (ones if mask >> request & 1 else numbers) << width
            ones |= ones << width
            width *= 2
        return numbers
