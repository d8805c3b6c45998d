"""Which ports are given whole and which in VFs, so that all requests can be served?

A port that could be either adds one of two supplies, and choosing for many ports at once is hard in
general (it contains exact cover). Ports that are alike are only counted, and as many kinds of them as
bits allow are decided at once (:mod:`portclaim.common.pci.ways`). Only for those beyond is there a
search; where they are many, prices for what is scarce (:mod:`portclaim.common.pci.prices`) keep it short.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from portclaim.common.pci.hall import Subsets
from portclaim.common.pci.prices import Prices, haggle
from portclaim.common.pci.ways import Looks, OutOfLooks, Ways

_WAYS_AT_ONCE = 1 << 13
"""Up to so many bits, an operation on them takes little longer than Python takes to begin it."""

_SEARCHED_WITHOUT_PRICES = 8
"""A search among so few kinds of ports ends sooner than prices are found."""

_LOOKS_FOR_WISHES = 300
"""How often to look for other ways, so that requests get the devices that they would rather have."""


@dataclass(slots=True, eq=False)
class OpenPorts:
    """Ports before the choice that are alike. Of ``count``, from ``least`` to ``most`` can still be split.

    ``best`` is the larger of the two supplies of one, subset by subset; ``split_loss`` and
    ``whole_loss`` are what is missing from it once the port is given in VFs, or whole.
    """

    best: int
    split_loss: int
    whole_loss: int
    count: int = 0
    least: int = 0
    most: int = 0

    @classmethod
    def of(cls, subsets: Subsets, pf_mask: int, vf_masks: Sequence[int]) -> OpenPorts:
        """Ports whose PF does for the requests in ``pf_mask``, and each VF for those in its own mask."""
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
        """What is missing from the best of all if none is split, if one is, and so on."""
        return [
            split * self.split_loss + (self.count - split) * self.whole_loss
            for split in range(self.count + 1)
        ]


class PortModes:
    """The choice for all open ports of a host, which every device that is taken narrows.

    It knows one way that leaves nobody short: how many of each kind of ``ports`` are split in it.
    """

    def __init__(self, subsets: Subsets, ports: Iterable[OpenPorts]) -> None:
        self._subsets = subsets
        # Those for which PFs do alike come together: whichever of them are split, the same is left.
        self._ports = sorted(ports, key=lambda alike: (alike.split_loss, alike.whole_loss))
        self._losses = [alike.losses() for alike in self._ports]
        self._known: Sequence[int] = [alike.most for alike in self._ports]
        self._known_loss = self._loss_of(self._known)
        sizes = (math.prod(map(len, self._losses[place:])) for place in range(len(self._ports) + 1))
        self._searched = sum(size > _WAYS_AT_ONCE for size in sizes)
        self._looks = Looks()
        self._ways = Ways(subsets, self._losses[self._searched :], self._looks)
        self._prices = Prices.none(self._losses)

    def is_possible(self, surpluses: int) -> bool:
        """Is there a way that leaves no subset short? ``surpluses`` counts each of the ports at its best.

        This takes as many looks as it must.
        """
        if self._fits(surpluses):
            return True
        if self._searched > _SEARCHED_WITHOUT_PRICES:
            self._prices, choice = haggle(self._subsets, surpluses, self._losses, self._allowed())
            if choice is not None:
                return self._keep(choice)
        return self._find(surpluses)

    def narrow(self, surpluses: int, ports: OpenPorts | None, *, whole: bool) -> bool:
        """The same with one of ``ports`` given ``whole``, or split. If that is not possible, nothing changes.

        For all these wishes together there are only so many looks; then no way but the known is tried.
        """
        before = (ports.least, ports.most) if ports else None
        if ports and whole:
            ports.most -= 1
        elif ports:
            ports.least += 1
        if self._looks.limit is None:
            self._looks.limit = self._looks.taken + _LOOKS_FOR_WISHES
        try:
            possible = self._fits(surpluses) or self._find(surpluses)
        except OutOfLooks:
            possible = False
        if not possible and ports and before:
            ports.least, ports.most = before
        return possible

    def _allowed(self) -> list[range]:
        return [alike.allowed for alike in self._ports]

    def _fits(self, surpluses: int) -> bool:
        """Is the way that is known one still?"""
        return self._subsets.none_short(surpluses - self._known_loss) and all(
            split in alike.allowed for split, alike in zip(self._known, self._ports, strict=True)
        )

    def _keep(self, choice: Sequence[int]) -> bool:
        self._known, self._known_loss = choice, self._loss_of(choice)
        return True

    def _loss_of(self, choice: Sequence[int]) -> int:
        return sum(losses[split] for losses, split in zip(self._losses, choice, strict=True))

    def _find(self, surpluses: int) -> bool:
        """Look for a way, and keep it. Raises :class:`OutOfLooks`."""
        if not self._subsets.none_short(surpluses):
            return False
        allowed = self._allowed()
        if not all(allowed):
            return False
        self._ways.allow(allowed[self._searched :])
        least_costs = self._prices.least_costs(allowed)

        def follow(place: int, surpluses: int, money: int) -> list[int] | None:
            """The choice from ``place`` on, cheap options first."""
            if not self._subsets.none_short(surpluses):
                return None
            if place == self._searched:
                return self._ways.find(surpluses)
            self._looks.count()
            costs = self._prices.costs[place]
            for split in sorted(allowed[place], key=lambda split: (costs[split], -split)):
                if costs[split] + least_costs[place + 1] > money:
                    break
                rest = follow(place + 1, surpluses - self._losses[place][split], money - costs[split])
                if rest is not None:
                    return [split, *rest]
            return None

        choice = follow(0, surpluses, self._prices.money(self._subsets, surpluses))
        return choice is not None and self._keep(choice)
