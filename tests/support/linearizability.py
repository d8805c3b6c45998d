"""Is there an order of overlapping calls that explains the answer of each?

The search of Wing and Gong (1993): extend an order call by call, and backtrack from dead ends. A call may
come next only if no other remaining call was answered before this call was made.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


class Undecided(Exception):
    """The search was given up without a result."""


@dataclass(frozen=True)
class Operation(Generic[S]):
    """A call, made and answered at these moments of one clock.

    ``take`` gives the state after it, or None where it cannot have answered so. ``after``: numbers of
    operations that are known to come before it. ``at_once``: wherever it can be taken, and there is an order
    from there, there is one that begins with it; so nothing else has to be tried.
    """

    called: int
    answered: int
    take: Callable[[S], S | None]
    after: frozenset[int] = frozenset()
    at_once: bool = False


def legal_order(operations: Sequence[Operation[S]], state: S, steps: int = 100_000) -> list[int] | None:
    """The numbers of the operations in an order that explains every answer, or None if there is none.

    Raises :class:`Undecided` after that many ``steps``.
    """
    by_call = sorted(range(len(operations)), key=lambda number: operations[number].called)
    after = [sum(1 << number for number in operation.after) for operation in operations]

    def choices(taken: int, state: S) -> Iterator[tuple[int, S]]:
        """What may come next, with the state after it. ``taken`` has a bit for each operation."""
        possible, due = [], None
        for number in by_call:
            if not taken >> number & 1:
                if due is not None and operations[number].called > due:
                    break
                due = operations[number].answered if due is None else min(due, operations[number].answered)
                if not after[number] & ~taken:
                    possible.append(number)
        possible.sort(key=lambda number: (not operations[number].at_once, operations[number].answered))
        for number in possible:
            following = operations[number].take(state)
            if following is not None:
                yield number, following
                if operations[number].at_once:
                    return

    order: list[int] = []
    been: set[tuple[int, S]] = set()
    taken, ways = 0, [choices(0, state)]
    while ways and len(order) < len(operations):
        number, following = next(ways[-1], (None, state))
        if number is None:
            ways.pop()
            if order:
                taken ^= 1 << order.pop()
        elif (place := (taken | 1 << number, following)) not in been:
            been.add(place)
            if len(been) > steps:
                raise Undecided(f"{steps} steps put no more than {len(order)} of {len(operations)} in order")
            taken |= 1 << number
            order.append(number)
            ways.append(choices(taken, following))
    return order if len(order) == len(operations) else None
