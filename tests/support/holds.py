"""Histories of claims and releases that overlapped, and whether they have a legal order."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import combinations

from tests.support.linearizability import Operation, legal_order
from tests.support.model_host import Free, can_serve, kinds_requested

Device = tuple[str, str]  # host and address
Holding = frozenset[Device]


@dataclass(frozen=True)
class Served:
    """A claim got these devices."""

    called: int
    answered: int
    devices: Holding


@dataclass(frozen=True)
class Freed:
    """The devices of ``claim`` were given back."""

    called: int
    answered: int
    claim: Served


@dataclass(frozen=True)
class Refused:
    """A claim got nothing."""

    called: int
    answered: int
    alias: str


Event = Served | Freed | Refused


class Holds:
    """What a fleet can serve; at first all of its devices are free. ``fleet``: the devices of each host."""

    def __init__(self, fleet: Mapping[str, Collection[Free]]) -> None:
        self._fleet = fleet
        self._devices = {(host, free.address): free for host, devices in fleet.items() for free in devices}
        self._can_serve = lru_cache(maxsize=None)(self._look_for)

    def legal_order(self, history: Sequence[Event]) -> list[int] | None:
        """Numbers of the events in an order that explains them all; None if there is none.

        Nobody gives back what it was not yet told that it has. So of two holds of a device, the time alone
        says which was first; and what is left to search for is when each release took effect. To take a
        claim or a refusal as early as it can be is never wrong: the more is held, the more may be refused.
        """
        handovers = self._handovers(history)
        if handovers is None:
            return None
        operations = [
            Operation(
                event.called,
                event.answered,
                partial(self.take, event),
                handovers[number],
                at_once=not isinstance(event, Freed),
            )
            for number, event in enumerate(history)
        ]
        return legal_order(operations, frozenset())

    def _handovers(self, history: Sequence[Event]) -> list[frozenset[int]] | None:
        """For each event the releases that it needs; None if a device was held by two at once."""
        release = {event.claim: number for number, event in enumerate(history) if isinstance(event, Freed)}
        claims = [(number, event) for number, event in enumerate(history) if isinstance(event, Served)]
        after: list[set[int]] = [set() for _ in history]
        for (number, claim), (other_number, other) in combinations(claims, 2):
            if self._touch(claim.devices, other.devices):
                if claim in release and history[release[claim]].called <= other.answered:
                    after[other_number].add(release[claim])
                elif other in release and history[release[other]].called <= claim.answered:
                    after[number].add(release[other])
                else:
                    return None
        return [frozenset(numbers) for numbers in after]

    def take(self, event: Event, held: Holding) -> Holding | None:
        """What is held after the event; None if it cannot happen while this is held."""
        match event:
            case Served():
                pairs = [({one}, {two}) for one, two in combinations(event.devices, 2)]
                clash = any(self._touch(*pair) for pair in [*pairs, (event.devices, held)])
                return None if clash else held | event.devices
            case Freed():
                return held - event.claim.devices
            case Refused():
                return None if self._can_serve(event.alias, held) else held

    def _touch(self, some: Collection[Device], others: Collection[Device]) -> bool:
        """Is a device of the one, or its tree partner, among the others?"""
        return any(
            host == other_host and self._devices[host, address].excludes(self._devices[host, other])
            for host, address in some
            for other_host, other in others
        )

    def _look_for(self, alias: str, held: Holding) -> bool:
        wanted = [kinds for _, kinds in kinds_requested(alias)]
        return any(
            can_serve([d for d in devices if not self._touch({(host, d.address)}, held)], wanted)
            for host, devices in self._fleet.items()
        )
