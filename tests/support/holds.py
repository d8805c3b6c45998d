"""Histories of overlapping claims and releases, and a check that a legal order explains them."""

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
    """A claim was served with these devices."""

    called: int
    answered: int
    devices: Holding


@dataclass(frozen=True)
class Freed:
    """The devices of ``claim`` were released."""

    called: int
    answered: int
    claim: Served


@dataclass(frozen=True)
class Refused:
    """A claim was refused."""

    called: int
    answered: int
    alias: str


Event = Served | Freed | Refused


class Holds:
    """What a fleet can serve. At first all its devices are free. ``fleet``: the devices of each host."""

    def __init__(self, fleet: Mapping[str, Collection[Free]]) -> None:
        self._fleet = fleet
        self._devices = {(host, free.address): free for host, devices in fleet.items() for free in devices}
        self._can_serve = lru_cache(maxsize=None)(self._is_possible)

    def legal_order(self, history: Sequence[Event]) -> list[int] | None:
        """The numbers of the events in an order that explains all answers; None if there is none.

        A caller releases a claim only after it was told of its devices. So if two claims had the same device,
        their times say which was first. The search only has to find when each release took effect. A claim or
        a refusal is taken as early as possible. That is always right: the more devices are held, the more
        may be refused.
        """
        releases_before = self._releases_before(history)
        if releases_before is None:
            return None
        operations = [
            Operation(
                event.called,
                event.answered,
                partial(self.take, event),
                releases_before[number],
                at_once=not isinstance(event, Freed),
            )
            for number, event in enumerate(history)
        ]
        return legal_order(operations, frozenset())

    def _releases_before(self, history: Sequence[Event]) -> list[frozenset[int]] | None:
        """For each event, the releases that come before it; None if two claims had a device at once."""
        release = {event.claim: number for number, event in enumerate(history) if isinstance(event, Freed)}
        claims = [(number, event) for number, event in enumerate(history) if isinstance(event, Served)]
        after: list[set[int]] = [set() for _ in history]
        for (number, claim), (other_number, other) in combinations(claims, 2):
            if self._exclude(claim.devices, other.devices):
                if claim in release and history[release[claim]].called <= other.answered:
                    after[other_number].add(release[claim])
                elif other in release and history[release[other]].called <= claim.answered:
                    after[number].add(release[other])
                else:
                    return None
        return [frozenset(numbers) for numbers in after]

    def take(self, event: Event, held: Holding) -> Holding | None:
        """The devices held after the event; None if the event is impossible while ``held`` is held."""
        match event:
            case Served():
                pairs = [({one}, {two}) for one, two in combinations(event.devices, 2)]
                clash = any(self._exclude(*pair) for pair in [*pairs, (event.devices, held)])
                return None if clash else held | event.devices
            case Freed():
                return held - event.claim.devices
            case Refused():
                return None if self._can_serve(event.alias, held) else held

    def _exclude(self, some: Collection[Device], others: Collection[Device]) -> bool:
        """Is a device of ``some``, or its PF, or one of its VFs, among ``others``?"""
        return any(
            host == other_host and self._devices[host, address].excludes(self._devices[host, other])
            for host, address in some
            for other_host, other in others
        )

    def _is_possible(self, alias: str, held: Holding) -> bool:
        wanted = [kinds for _, kinds in kinds_requested(alias)]
        return any(
            can_serve([d for d in devices if not self._exclude({(host, d.address)}, held)], wanted)
            for host, devices in self._fleet.items()
        )
