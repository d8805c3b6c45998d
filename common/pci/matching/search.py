"""Search all choices of one option at each of several places for one that leaves no subset short.

Each choice is one bit of an integer. The search tries one choice. If it leaves a subset of the requests short
of devices, all choices that do so are removed at once, and the search tries another. So it takes at most as
many steps as there are subsets, and usually a few. A failed search gives a nogood: no search succeeds whose
surpluses are not larger in the subsets that removed all choices.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from portclaim.common.pci.matching.subsets import Subsets

_TESTED_FIRST = 24
"""So many of the subsets that were short most recently are tested before the first step."""

_NOGOODS_KEPT = 64
"""To test so many takes as long as some steps."""

_STEPS_PER_TABLE = 10
"""To sort the choices by what they take from a subset takes as long as so many steps."""


class BudgetExhausted(Exception):
    """Ends a search that has taken all of its steps."""


class SearchBudget:
    """Counts the steps of a search. ``limit``: how many it may take; None: any number."""

    def __init__(self) -> None:
        self.taken = 0
        self.limit: int | None = None

    def count(self, steps: int = 1) -> None:
        """Count steps. Raises :class:`BudgetExhausted` beyond the limit."""
        self.taken += steps
        if self.limit is not None and self.taken > self.limit:
            raise BudgetExhausted


class ChoiceSearch:
    """The choices among ``options``: what each option at each place takes from the surpluses.

    The bit of a choice has the number that its options spell as digits.
    """

    def __init__(self, subsets: Subsets, options: Sequence[Sequence[int]], budget: SearchBudget) -> None:
        self._subsets = subsets
        self._options = options
        self._budget = budget
        self._digits = [
            (takes, math.prod(map(len, options[place:]))) for place, takes in enumerate(options, start=1)
        ]
        middle = len(options) // 2
        self._first_half, self._second_half = _all_sums(options[:middle]), _all_sums(options[middle:])
        self._by_loss: dict[int, tuple[list[int], list[int]]] = {}
        self._short: dict[int, None] = {}  # the subset that was short last is the last
        self._nogoods: deque[int] = deque(maxlen=_NOGOODS_KEPT)
        self._allowed = 0

    def allow(self, allowed: Sequence[range]) -> None:
        """From now on, choose at each place one of the ``allowed`` options."""
        choices = 1
        for options, (_, size) in zip(reversed(allowed), reversed(self._digits), strict=True):
            choices = functools.reduce(operator.or_, (choices << option * size for option in options), 0)
        self._allowed = choices
        self._nogoods.clear()

    def find(self, surpluses: int) -> list[int] | None:
        """A choice that leaves no subset short, as its option at each place; None: there is none.

        The caller knows that no subset is short before. Raises :class:`BudgetExhausted`.
        """
        if any(self._subsets.is_below(surpluses, nogood) for nogood in self._nogoods):
            return None
        self._budget.count()
        choices, removed_by = self._allowed, []
        for subset in itertools.islice(reversed(self._short), _TESTED_FIRST):
            rest = choices & self._enough_for(subset, surpluses)
            if rest != choices:
                removed_by.append(subset)
                choices = rest
            if not choices:
                break
        while choices:
            self._budget.count()
            choice = choices.bit_length() - 1
            first, second = divmod(choice, len(self._second_half))
            left = surpluses - self._first_half[first] - self._second_half[second]
            short = self._subsets.shortest(left)
            if short is None:
                return self._options_of(choice)
            choices &= self._enough_for(short, surpluses)
            removed_by.append(short)
            self._short.pop(short, None)
            self._short[short] = None
        self._nogoods.appendleft(self._subsets.ceiling(surpluses, removed_by))
        return None

    def _options_of(self, choice: int) -> list[int]:
        options = []
        for _, size in self._digits:
            option, choice = divmod(choice, size)
            options.append(option)
        return options

    def _enough_for(self, subset: int, surpluses: int) -> int:
        """The choices that do not leave this subset short."""
        if subset not in self._by_loss:
            self._budget.count(_STEPS_PER_TABLE)
            self._by_loss[subset] = self._sort_by_loss(subset)
        losses, choices = self._by_loss[subset]
        return choices[bisect_right(losses, self._subsets.surplus(surpluses, subset))]

    def _sort_by_loss(self, subset: int) -> tuple[list[int], list[int]]:
        """What choices can take from a subset, in ascending order; and the choices that take nothing, at most
        the first number, at most the second, and so on.
        """
        by_loss = {0: 1}
        for takes, size in reversed(self._digits):
            longer: dict[int, int] = {}
            for option, taken in enumerate(takes):
                loss, shift = self._subsets.at(taken, subset), option * size
                for rest, choices in by_loss.items():
                    longer[loss + rest] = longer.get(loss + rest, 0) | choices << shift
            by_loss = longer
        losses = sorted(by_loss)
        return losses, list(itertools.accumulate(map(by_loss.__getitem__, losses), operator.or_, initial=0))


def _all_sums(options: Sequence[Sequence[int]]) -> list[int]:
    """What each choice among these takes in all."""
    sums = [0]
    for takes in options:
        sums = [taken + more for taken in sums for more in takes]
    return sums
