"""Lagrangian relaxation: find a choice that leaves no subset short, or prove early that there is none.

Each subset has a Lagrange multiplier, a whole number. With these weights each option has a cost, and the
surpluses have a capacity. A choice that leaves no subset short costs at most the capacity. So if even the
cheapest choice costs more, there is none.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portclaim.common.pci.matching.subsets import Subsets

_ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Multipliers of some subsets, and what each option at each place costs with them."""

    weights: Mapping[int, int]
    costs: Sequence[Sequence[int]]

    @classmethod
    def none(cls, options: Sequence[Sequence[int]]) -> Multipliers:
        """All multipliers are 0. ``options``: what each option at each place takes from the surpluses."""
        return cls({}, [[0] * len(takes) for takes in options])

    def raised(self, subsets: Subsets, subset: int, options: Sequence[Sequence[int]]) -> Multipliers:
        """The multiplier of ``subset`` raised by 1."""
        return Multipliers(
            {**self.weights, subset: self.weights.get(subset, 0) + 1},
            [
                [cost + subsets.at(taken, subset) for cost, taken in zip(costs, takes, strict=True)]
                for costs, takes in zip(self.costs, options, strict=True)
            ],
        )

    def capacity(self, subsets: Subsets, surpluses: int) -> int:
        """The weighted sum of the surpluses."""
        return sum(weight * subsets.surplus(surpluses, subset) for subset, weight in self.weights.items())

    def cheapest(self, allowed: Sequence[range]) -> list[int]:
        """The cheapest of the ``allowed`` options at each place; of options with the same cost, the last."""
        return [
            min(reversed(choices), key=costs.__getitem__)
            for choices, costs in zip(allowed, self.costs, strict=True)
        ]

    def least_costs(self, allowed: Sequence[range]) -> list[int]:
        """What the places from each one on cost at least."""
        costs = (costs[option] for costs, option in zip(self.costs, self.cheapest(allowed), strict=True))
        return list(itertools.accumulate(reversed(list(costs)), initial=0))[::-1]


def raise_multipliers(
    subsets: Subsets, surpluses: int, options: Sequence[Sequence[int]], allowed: Sequence[range]
) -> tuple[Multipliers, list[int] | None]:
    """Subgradient ascent: try the cheapest choice, and raise the multiplier of the subset that it leaves most
    short.

    Returns the choice that leaves no subset short, if one was found. Else it returns the multipliers with
    which the cost of the cheapest choice comes closest to the capacity, or exceeds it.
    """
    multipliers = tightest = Multipliers.none(options)
    best_cost, best_capacity = 0, 1
    for _ in range(_ROUNDS):
        choice = multipliers.cheapest(allowed)
        cost = sum(costs[option] for costs, option in zip(multipliers.costs, choice, strict=True))
        capacity = multipliers.capacity(subsets, surpluses)
        if cost * best_capacity > best_cost * capacity:
            tightest, best_cost, best_capacity = multipliers, cost, capacity
        if cost > capacity:
            break
        left = surpluses - sum(takes[option] for takes, option in zip(options, choice, strict=True))
        short = subsets.shortest(left)
        if short is None:
            return multipliers, choice
        multipliers = multipliers.raised(subsets, short, options)
    return tightest, None
