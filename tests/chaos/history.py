"""All claims of a campaign as a history, which a solver judges. See tests/support/solver.py."""

from collections import defaultdict
from collections.abc import Collection

from tests.chaos.cycles import Cycle
from tests.support.holds import Device, Event, Freed, Served
from tests.support.solver import Parents, has_legal_order


def unexplained(cycles: Collection[Cycle], parents: Parents) -> list[str]:
    """The hosts on which no order of claims and releases explains the answers to clients.

    A claim takes effect between its first call and its first answer with devices. It ends between the first
    call that may end it and the answer that says that it has ended.
    """
    histories: dict[str, list[Event]] = defaultdict(list)
    for cycle in cycles:
        if cycle.devices and cycle.first_called is not None and cycle.answered is not None:
            devices = frozenset(_device(each) for each in cycle.devices)
            claim = Served(_nanoseconds(cycle.first_called), _nanoseconds(cycle.answered), devices)
            histories[cycle.host].append(claim)
            if cycle.ended_by is not None:
                began = _nanoseconds(min(cycle.may_end_from, cycle.ended_by))
                histories[cycle.host].append(Freed(began, _nanoseconds(cycle.ended_by), claim))
    return [
        f"the solver finds no order of the {len(history)} claims and releases on {host}"
        for host, history in histories.items()
        if not has_legal_order({d: parent for d, parent in parents.items() if d[0] == host}, history)
    ]


def _device(text: str) -> Device:
    host, address = text.split()
    return host, address


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
