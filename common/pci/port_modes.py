"""Which ports are given whole and which in VFs, so that all requests can be served?

A port that could be either adds one of two supplies, and choosing for many ports at once is hard in
general (it contains exact cover), so this is a search. It is exact. Three things keep it short: a
choice is followed only while no subset of the requests is short of devices; surpluses that no
choice can use up are forgotten, so that many states become one; and prices tell early that whole
ports and VFs cannot both be had in the numbers that are still needed.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from common.pci.hall import Subsets

Key = TypeVar("Key", bound=Hashable)

_FIRST_STEPS = 300
_SUBSETS_TRIED = 8
_PRICES_KEPT = 4


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


def choose_whole(
    subsets: Subsets,
    surpluses: int,
    ports: Mapping[Key, OpenPort],
    hint: Collection[Key] = (),
    max_steps: int | None = None,
) -> frozenset[Key] | None:
    """The ports to be given whole, all others in VFs, so that no subset of the requests is short.

    ``surpluses`` counts the ``best`` of each of ``ports`` as supply. ``hint`` is a choice to try
    first. None: there is no such choice, or with ``max_steps`` none was found in so many steps.
    """
    if not subsets.none_short(surpluses):
        return None
    free = {key for key, port in ports.items() if not port.whole_loss}
    undecided = {key: port for key, port in ports.items() if port.whole_loss and port.split_loss}
    for whole in (undecided.keys() & hint, _split_while_possible(subsets, surpluses, undecided)):
        losses = (port.whole_loss if key in whole else port.split_loss for key, port in undecided.items())
        if subsets.none_short(surpluses - sum(losses)):
            return frozenset(free | whole)
    found = _search(subsets, surpluses, undecided, max_steps)
    return None if found is None else frozenset(free | found)


def _split_while_possible(subsets: Subsets, surpluses: int, ports: Mapping[Key, OpenPort]) -> set[Key]:
    """A good guess: give the ports with the fewest useful VFs whole, as many as must be."""
    whole = set()
    for key, port in sorted(ports.items(), key=lambda item: -item[1].whole_loss.bit_count()):
        if subsets.none_short(surpluses - port.split_loss):
            surpluses -= port.split_loss
        else:
            surpluses -= port.whole_loss
            whole.add(key)
    return whole


def _search(
    subsets: Subsets, surpluses: int, ports: Mapping[Key, OpenPort], max_steps: int | None
) -> set[Key] | None:
    """What is hard in one order of ports is often easy in another: try both, with growing patience."""
    by_breadth = sorted(ports, key=lambda key: (ports[key].vf_mask.bit_count(), ports[key].vf_mask))
    if max_steps is not None:
        with contextlib.suppress(_OutOfSteps):
            return _Search(subsets, ports, by_breadth, ()).run(surpluses, max_steps)
        return None
    prices = _find_prices(subsets, surpluses, list(ports.values()))
    if prices is None:
        return None
    for patience in itertools.count():
        for order in (by_breadth, _by_scarcity(subsets, ports)):
            with contextlib.suppress(_OutOfSteps):
                return _Search(subsets, ports, order, prices).run(surpluses, _FIRST_STEPS << 2 * patience)
    raise AssertionError("unreachable")


def _by_scarcity(subsets: Subsets, ports: Mapping[Key, OpenPort]) -> list[Key]:
    """First those whose VFs do for the request that the fewest ports serve, and so on with the rest."""
    rest, order = dict(ports), []
    while rest:
        serving = [
            [key for key, port in rest.items() if port.vf_mask >> request & 1]
            for request in range(subsets.requests)
        ]
        scarcest = min(filter(None, serving), key=len, default=list(rest))
        order += scarcest
        for key in scarcest:
            del rest[key]
    return order


class _OutOfSteps(Exception):
    """Ends a search that may take only so long."""


class _Search(Generic[Key]):
    """Depth first, port by port, in a given order."""

    def __init__(
        self, subsets: Subsets, ports: Mapping[Key, OpenPort], order: Sequence[Key], prices: Iterable[_Price]
    ) -> None:
        self._subsets = subsets
        self._keys = order
        self._ports = [ports[key] for key in order]
        self._usable = _sums_from(port.split_loss + port.whole_loss for port in self._ports)
        self._bounds = [_Bound(subsets, price, self._ports) for price in prices]
        self._failed: set[tuple[int, int]] = set()
        self._whole: set[Key] = set()
        self._steps_left = 0

    def run(self, surpluses: int, max_steps: int) -> set[Key] | None:
        """The ports to be given whole; None: there is no choice. Raises :class:`_OutOfSteps`."""
        self._steps_left = max_steps
        return self._whole if self._follow(0, surpluses) else None

    def _follow(self, place: int, surpluses: int) -> bool:
        """Can the ports from ``place`` on be chosen for, with these surpluses?"""
        self._steps_left -= 1
        if self._steps_left < 0:
            raise _OutOfSteps
        if not self._subsets.none_short(surpluses):
            return False
        if place == len(self._ports):
            return True
        surpluses = self._subsets.cap(surpluses, self._usable[place])
        state = place, surpluses
        if state in self._failed:
            return False
        if all(bound.holds(surpluses, place) for bound in self._bounds):
            port = self._ports[place]
            if self._follow(place + 1, surpluses - port.split_loss):
                return True
            if self._follow(place + 1, surpluses - port.whole_loss):
                self._whole.add(self._keys[place])
                return True
        self._failed.add(state)
        return False


class _Price(NamedTuple):
    """What every port pays, into the surplus of each subset, for what it takes of that of ``subset``."""

    subset: int
    amount: int


class _Bound:
    """A price makes a bound: no more than the surplus of its subset can be paid for, and a port costs
    each subset, payment included, the smaller of two sums, however it is chosen for.
    """

    def __init__(self, subsets: Subsets, price: _Price, ports: Sequence[OpenPort]) -> None:
        self._subsets = subsets
        self._price = price
        self._costs = _sums_from(self._least_cost(port) for port in ports)

    def holds(self, surpluses: int, place: int) -> bool:
        """Can the ports from ``place`` on still be paid for?"""
        return self._subsets.none_short(self.left(surpluses, place))

    def left(self, surpluses: int, place: int) -> int:
        """What the subsets have left if all ports from ``place`` on cost as little as they can."""
        subset, amount = self._price
        payable = amount * self._subsets.surplus(surpluses, subset)
        return surpluses + payable * self._subsets.ones - self._costs[place]

    def _least_cost(self, port: OpenPort) -> int:
        subset, amount = self._price
        subsets = self._subsets
        split = port.split_loss + amount * subsets.at(port.split_loss, subset) * subsets.ones
        whole = port.whole_loss + amount * subsets.at(port.whole_loss, subset) * subsets.ones
        return subsets.least(split, whole)


def _find_prices(subsets: Subsets, surpluses: int, ports: Sequence[OpenPort]) -> list[_Price] | None:
    """The prices with the tightest bounds; None if one shows that there is no choice.

    Worth a price are the subsets that would be most short if all ports were split.
    """
    wanted = subsets.each(sum(port.split_loss for port in ports))
    there = subsets.each(surpluses ^ subsets.guards)
    missing = [more - less for more, less in zip(wanted, there, strict=True)]
    shortest = sorted(range(len(missing)), key=missing.__getitem__)[-_SUBSETS_TRIED:]
    sizes = [subsets.at(port.whole_loss, port.vf_mask) for port in ports]
    found: list[tuple[int, _Price]] = []
    for price in itertools.starmap(_Price, itertools.product(shortest, {1, min(sizes), max(sizes)})):
        left = _Bound(subsets, price, ports).left(surpluses, 0)
        if not subsets.none_short(left):
            return None
        found.append((min(subsets.each(left)), price))
    return [price for _, price in sorted(found)[:_PRICES_KEPT]]


def _sums_from(numbers: Iterable[int]) -> Sequence[int]:
    """At each place the sum of all numbers from there on."""
    return list(itertools.accumulate(reversed(list(numbers)), initial=0))[::-1]
