"""Decide which ports are given whole and which in VFs, so that all requests can be served.

Ports that are alike are only counted. As many kinds of ports as fit into one integer are decided at once
(:mod:`.search`). For the other kinds there is a depth-first search, which Lagrangian bounds
(:mod:`.lagrangian`) keep short where the kinds are many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from portclaim.common.pci.matching.lagrangian import Multipliers, raise_multipliers
from portclaim.common.pci.matching.search import BudgetExhausted, ChoiceSearch, SearchBudget
from portclaim.common.pci.matching.subsets import Subsets

_CHOICES_AT_ONCE = 1 << 13
"""Up to so many bits, an operation on an integer takes little longer than Python's overhead for it."""

_SEARCHED_WITHOUT_BOUND = 8
"""A search among so few kinds of ports ends before Lagrange multipliers are found."""

_STEPS_FOR_PREFERENCES = 300
"""Steps of the search for other choices, by which requests get the devices that they prefer."""


@dataclass(slots=True, eq=False)
class OpenPorts:
    """Ports that are alike and not decided yet. Of ``count`` ports, from ``least`` to ``most`` can still be
    split.

    ``best`` is the larger of a port's two supplies, subset by subset. ``split_loss`` and ``whole_loss`` are
    what is missing from it when the port is given in VFs, or whole.
    """

    best: int
    split_loss: int
    whole_loss: int
    count: int = 0
    least: int = 0
    most: int = 0

    @classmethod
    def of(cls, subsets: Subsets, pf_mask: int, vf_masks: Sequence[int]) -> OpenPorts:
        """Ports whose PF satisfies the requests in ``pf_mask``, and each VF those in its own mask."""
        vf_mask = 0
        for mask in vf_masks:
            vf_mask |= mask
        whole = subsets.supply(pf_mask)
        split_loss = whole & ~subsets.supply(vf_mask)
        best = sum(subsets.supply(mask) for mask in vf_masks) + split_loss
        return cls(best, split_loss, best - whole)

    def add(self) -> None:
        """One more port like these."""
        self.count += 1
        self.most += 1

    @property
    def allowed(self) -> range:
        """How many can be split."""
        return range(self.least, self.most + 1)

    def losses(self) -> list[int]:
        """What is missing from the best supply of all ports if none is split, if one is split, and so on."""
        return [
            split * self.split_loss + (self.count - split) * self.whole_loss
            for split in range(self.count + 1)
        ]


class PortModes:
    """The choice for all open ports of a host. Every device that is taken narrows it.

    It keeps one known choice that leaves no subset short: how many ports of each kind are split.
    """

    def __init__(self, subsets: Subsets, ports: Iterable[OpenPorts]) -> None:
        self._subsets = subsets
        # Kinds with the same split loss come together: whichever of them are split, the same surplus is left.
        self._ports = sorted(ports, key=lambda alike: (alike.split_loss, alike.whole_loss))
        self._losses = [alike.losses() for alike in self._ports]
        self._known: Sequence[int] = [alike.most for alike in self._ports]
        self._known_loss = self._loss_of(self._known)
        sizes = (math.prod(map(len, self._losses[place:])) for place in range(len(self._ports) + 1))
        self._searched = sum(size > _CHOICES_AT_ONCE for size in sizes)
        self._budget = SearchBudget()
        self._search = ChoiceSearch(subsets, self._losses[self._searched :], self._budget)
        self._multipliers = Multipliers.none(self._losses)

    def is_possible(self, surpluses: int) -> bool:
        """Is there a choice that leaves no subset short? ``surpluses`` counts each port at its best.

        The number of steps is not bounded.
        """
        if self._fits(surpluses):
            return True
        if self._searched > _SEARCHED_WITHOUT_BOUND:
            self._multipliers, choice = raise_multipliers(
                self._subsets, surpluses, self._losses, self._allowed()
            )
            if choice is not None:
                return self._keep(choice)
        return self._find(surpluses)

    def narrow(self, surpluses: int, ports: OpenPorts | None, *, whole: bool) -> bool:
        """The same with one of ``ports`` given ``whole``, or split. If that is not possible, nothing changes.

        All these calls together have a bounded number of steps. After these, only the known choice is tried.
        """
        before = (ports.least, ports.most) if ports else None
        if ports and whole:
            ports.most -= 1
        elif ports:
            ports.least += 1
        if self._budget.limit is None:
            self._budget.limit = self._budget.taken + _STEPS_FOR_PREFERENCES
        try:
            possible = self._fits(surpluses) or self._find(surpluses)
        except BudgetExhausted:
            possible = False
        if not possible and ports and before:
            ports.least, ports.most = before
        return possible

    def _allowed(self) -> list[range]:
        return [alike.allowed for alike in self._ports]

    def _fits(self, surpluses: int) -> bool:
        """Does the known choice still leave no subset short?"""
        return self._subsets.none_short(surpluses - self._known_loss) and all(
            split in alike.allowed for split, alike in zip(self._known, self._ports, strict=True)
        )

    def _keep(self, choice: Sequence[int]) -> bool:
        self._known, self._known_loss = choice, self._loss_of(choice)
        return True

    def _loss_of(self, choice: Sequence[int]) -> int:
        return sum(losses[split] for losses, split in zip(self._losses, choice, strict=True))

    def _find(self, surpluses: int) -> bool:
        """Search for a choice, and keep it. Raises :class:`BudgetExhausted`."""
        if not self._subsets.none_short(surpluses):
            return False
        allowed = self._allowed()
        if not all(allowed):
            return False
        self._search.allow(allowed[self._searched :])
        least_costs = self._multipliers.least_costs(allowed)

        def follow(place: int, surpluses: int, capacity: int) -> list[int] | None:
            """The choice from ``place`` on, cheap options first."""
            if not self._subsets.none_short(surpluses):
                return None
            if place == self._searched:
                return self._search.find(surpluses)
            self._budget.count()
            costs = self._multipliers.costs[place]
            for split in sorted(allowed[place], key=lambda split: (costs[split], -split)):
                if costs[split] + least_costs[place + 1] > capacity:
                    break
                rest = follow(place + 1, surpluses - self._losses[place][split], capacity - costs[split])
                if rest is not None:
                    return [split, *rest]
            return None

        choice = follow(0, surpluses, self._multipliers.capacity(self._subsets, surpluses))
        return choice is not None and self._keep(choice)
