"""Which ports are given whole and which in VFs, so that all requests can be served?

A port that could be either adds one of two supplies, and choosing for several ports at once is hard
in general (it contains exact cover), so this is a search. It is exact; what keeps it short is that
a choice is only explored while every subset of the requests can still be served, that surpluses
which no choice can use up are forgotten, so that many states become one, and a bound on what the
whole ports still needed must cost.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.pci.hall import Subsets


@dataclass(frozen=True, slots=True)
class OpenPort:
    """A port before the choice. ``best`` is the larger of its two supplies, subset by subset.

    ``split_loss`` and ``whole_loss`` are what is missing from ``best`` once it is given in VFs, or
    whole. ``vf_mask`` is the set of requests that some VF of it does for.
    """

    best: int
    split_loss: int
    whole_loss: int
    vf_mask: int

    @classmethod
    def of(cls, subsets: Subsets, pf_mask: int, vf_masks: Sequence[int]) -> OpenPort:
        """The port whose PF does for the requests in ``pf_mask``, and each VF for those in its own mask."""
        vf_mask = 0
        for mask in vf_masks:
            vf_mask |= mask
        whole = subsets.supply(pf_mask)
        split = sum(subsets.supply(mask) for mask in vf_masks)
        split_loss = whole & ~subsets.supply(vf_mask)
        best = split + split_loss
        return cls(best, split_loss, best - whole, vf_mask)


def can_serve(subsets: Subsets, surpluses: int, ports: Sequence[OpenPort]) -> bool:
    """Is there a choice for every port that leaves no subset of the requests short?

    ``surpluses`` counts the ``best`` of each of ``ports`` as supply.
    """
    if not subsets.none_short(surpluses):
        return False
    undecided = [port for port in ports if port.split_loss and port.whole_loss]
    return _first_try(subsets, surpluses, undecided) or _Search(subsets, undecided).succeeds(0, surpluses)


def _first_try(subsets: Subsets, surpluses: int, ports: Sequence[OpenPort]) -> bool:
    """Split the larger ports and give the smaller ones whole, without ever taking a choice back."""
    for port in sorted(ports, key=lambda port: port.whole_loss.bit_count(), reverse=True):
        split = surpluses - port.split_loss
        surpluses = split if subsets.none_short(split) else surpluses - port.whole_loss
        if not subsets.none_short(surpluses):
            return False
    return True


class _Search:
    """Depth first, port by port; the ports whose VFs do for few requests first."""

    def __init__(self, subsets: Subsets, ports: Sequence[OpenPort]) -> None:
        self._subsets = subsets
        self._ports = sorted(ports, key=lambda port: (port.vf_mask.bit_count(), port.vf_mask))
        self._usable = _suffix_sums(port.split_loss + port.whole_loss for port in self._ports)
        self._whole_only = self._requests_for_whole_ports()
        self._prices = [(price, self._charges(price)) for price in self._price_levels()]
        self._failed: set[tuple[int, int]] = set()
        self.steps = 0

    def succeeds(self, place: int, surpluses: int) -> bool:
        """Can the ports from ``place`` on be chosen for, with these surpluses?"""
        self.steps += 1
        if not self._subsets.none_short(surpluses):
            return False
        if place == len(self._ports):
            return True
        surpluses = self._subsets.cap(surpluses, self._usable[place])
        if (place, surpluses) in self._failed:
            return False
        port = self._ports[place]
        if self._is_affordable(place, surpluses) and (
            self.succeeds(place + 1, surpluses - port.split_loss)
            or self.succeeds(place + 1, surpluses - port.whole_loss)
        ):
            return True
        self._failed.add((place, surpluses))
        return False

    def _is_affordable(self, place: int, surpluses: int) -> bool:
        """A bound. Let every port from ``place`` on that is split, though requests wait for whole
        ports, pay a price into the surplus of each subset: then either choice costs a port at least
        the smaller of the price and what it loses when given whole, and no more can be paid than the
        whole ports to spare."""
        to_spare = self._subsets.surplus(surpluses, self._whole_only)
        return all(
            self._subsets.none_short(surpluses + price * to_spare * self._subsets.ones - charges[place])
            for price, charges in self._prices
        )

    def _requests_for_whole_ports(self) -> int:
        """The requests for which no VF of these ports does."""
        return self._subsets.everyone & ~functools.reduce(operator.or_, (p.vf_mask for p in self._ports), 0)

    def _price_levels(self) -> list[int]:
        """Prices worth asking: the numbers of VFs that ports have."""
        return sorted({self._subsets.at(port.whole_loss, port.vf_mask) for port in self._ports})

    def _charges(self, price: int) -> Sequence[int]:
        level = price * self._subsets.ones
        return _suffix_sums(
            self._subsets.least(port.whole_loss, level)
            if self._subsets.at(port.split_loss, self._whole_only)
            else 0
            for port in self._ports
        )


def _suffix_sums(numbers: Iterable[int]) -> Sequence[int]:
    """At each place the sum of all numbers from there on."""
    return list(itertools.accumulate(reversed(list(numbers)), initial=0))[::-1]
