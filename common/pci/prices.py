"""Prices for what is scarce: they find the choice that serves everybody, or tell early that there is none.

If every unit of a subset's surplus has a price, each option costs something, and the surpluses are
the money that there is. A choice that leaves no subset short can be paid for. So where even the
cheapest cannot, there is none (Lagrange's multipliers, in whole numbers).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portclaim.common.pci.hall import Subsets

_ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Prices:
    """A price for some subsets, and what each option at each place costs at these prices."""

    price: Mapping[int, int]
    costs: Sequence[Sequence[int]]

    @classmethod
    def none(cls, options: Sequence[Sequence[int]]) -> Prices:
        """Everything is free. ``options``: what each option at each place takes from the surpluses."""
        return cls({}, [[0] * len(takes) for takes in options])

    def raised(self, subsets: Subsets, subset: int, options: Sequence[Sequence[int]]) -> Prices:
        """One more for each unit of the surplus of ``subset``."""
        return Prices(
            {**self.price, subset: self.price.get(subset, 0) + 1},
            [
                [cost + subsets.at(taken, subset) for cost, taken in zip(costs, takes, strict=True)]
                for costs, takes in zip(self.costs, options, strict=True)
            ],
        )

    def money(self, subsets: Subsets, surpluses: int) -> int:
        """What the surpluses are worth."""
        return sum(price * subsets.surplus(surpluses, subset) for subset, price in self.price.items())

    def cheapest(self, allowed: Sequence[range]) -> list[int]:
        """The cheapest of the ``allowed`` options at each place; of those that cost the same, the last."""
        return [
            min(reversed(choices), key=costs.__getitem__)
            for choices, costs in zip(allowed, self.costs, strict=True)
        ]

    def least_costs(self, allowed: Sequence[range]) -> list[int]:
        """What the places from each on cost at least."""
        costs = (costs[option] for costs, option in zip(self.costs, self.cheapest(allowed), strict=True))
        return list(itertools.accumulate(reversed(list(costs)), initial=0))[::-1]


def haggle(
    subsets: Subsets, surpluses: int, options: Sequence[Sequence[int]], allowed: Sequence[range]
) -> tuple[Prices, list[int] | None]:
    """Try the cheapest choice and raise the price of what it leaves most short, round by round.

    Returns the choice that leaves no subset short, if one was found, and else the prices at which
    the least that a choice costs comes closest to all the money, or is more.
    """
    prices = tightest = Prices.none(options)
    best_cost, best_money = 0, 1
    for _ in range(_ROUNDS):
        choice = prices.cheapest(allowed)
        cost = sum(costs[option] for costs, option in zip(prices.costs, choice, strict=True))
        money = prices.money(subsets, surpluses)
        if cost * best_money > best_cost * money:
            tightest, best_cost, best_money = prices, cost, money
        if cost > money:
            break
        left = surpluses - sum(takes[option] for takes, option in zip(options, choice, strict=True))
        short = subsets.shortest(left)
        if short is None:
            return prices, choice
        prices = prices.raised(subsets, short, options)
    return tightest, None
