"""A second judge of histories: the Z3 solver, which knows nothing of our search.

A history is a set of formulas: every claim, release and refusal takes effect at one moment between its call
and its answer, and every answer is true at that moment. The solver says whether such moments exist.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import z3

from tests.support.holds import Device, Event, Freed, Refused, Served

Parents = Mapping[Device, Device | None]
"""All devices, each with the PF of a VF."""


@dataclass
class _Held:
    """A claim and its release, if there was one, with the moments at which they took effect."""

    claim: Served
    release: Freed | None
    start: z3.ArithRef
    end: z3.ArithRef | None


def has_legal_order(parents: Parents, history: Sequence[Event], patience: float = 120.0) -> bool:
    """Is there a moment for each event at which its answer is right?

    Raises :class:`TimeoutError` if the solver has not found out after so many seconds.
    """
    solver = z3.SolverFor("QF_LRA")
    solver.set("timeout", int(patience * 1000))
    if any(_exclude_themselves(parents, event) for event in history if isinstance(event, Served)):
        return False
    releases = {event.claim: event for event in history if isinstance(event, Freed)}
    of_trees: dict[Device, list[_Held]] = defaultdict(list)
    for number, event in enumerate(history):
        if isinstance(event, Served):
            held = _hold(solver, number, event, releases.get(event))
            for top in {parents[device] or device for device in event.devices}:
                of_trees[top].append(held)
    for tree in of_trees.values():
        for one, other in _near_in_time(tree):
            if _exclude(parents, one.claim.devices, other.claim.devices):
                solver.add(z3.Or(*_ends_before(one, other), *_ends_before(other, one)))
    for number, event in enumerate(history):
        if isinstance(event, Refused):
            moment = _moment(solver, f"refused {number}", event)
            solver.add(*_nothing_free(parents, of_trees, event, moment))
    answer = solver.check()
    if answer == z3.unknown:
        raise TimeoutError(f"the solver has not found out: {solver.reason_unknown()}")
    return bool(answer == z3.sat)


def _hold(solver: z3.Solver, number: int, claim: Served, release: Freed | None) -> _Held:
    held = _Held(claim, release, _moment(solver, f"claim {number}", claim), None)
    if release is not None:
        held.end = _moment(solver, f"release {number}", release)
        solver.add(held.start < held.end)
    return held


def _moment(solver: z3.Solver, name: str, event: Event) -> z3.ArithRef:
    """Times are whole numbers. At equal times, either event may be the first."""
    moment = z3.Real(name)
    solver.add(moment >= event.called, moment <= event.answered + z3.Q(1, 2))
    return moment


def _near_in_time(claims: Sequence[_Held]) -> Iterator[tuple[_Held, _Held]]:
    """Pairs of claims whose times do not say which was first."""
    ordered = sorted(claims, key=lambda held: held.claim.called)
    for number, one in enumerate(ordered):
        for other in ordered[number + 1 :]:
            if one.release is None or one.release.answered >= other.claim.called:
                yield one, other


def _ends_before(one: _Held, other: _Held) -> list[z3.BoolRef]:
    return [one.end < other.start] if one.end is not None else []


def _exclude(parents: Parents, some: frozenset[Device], others: frozenset[Device]) -> bool:
    """Is a device of ``some``, or its PF, or one of its VFs, among ``others``?"""
    return any(
        one == other or parents[one] == other or parents[other] == one for one in some for other in others
    )


def _exclude_themselves(parents: Parents, claim: Served) -> bool:
    return any(parents[device] in claim.devices for device in claim.devices)


def _nothing_free(
    parents: Parents, of_trees: Mapping[Device, Sequence[_Held]], refused: Refused, moment: z3.ArithRef
) -> Iterator[z3.BoolRef]:
    """No host has what was refused at this moment."""
    wanted = dict(each.split(":") for each in refused.alias.split(","))
    pfs, vfs = int(wanted.get("nic-pf", 0)), int(wanted.get("nic-vf", 0))
    free = {device: _is_free(parents, of_trees, device, refused, moment) for device in parents}
    for host in {host for host, _ in parents}:
        ports = [device for device, parent in parents.items() if device[0] == host and parent is None]
        for whole in itertools.combinations(ports, pfs):
            others = [
                free[device]
                for device, parent in parents.items()
                if device[0] == host and parent is not None and parent not in whole
            ]
            if len(others) >= vfs:
                enough = [z3.PbGe([(each, 1) for each in others], vfs)] if vfs else []
                yield z3.Not(z3.And(*(free[port] for port in whole), *enough))


def _is_free(
    parents: Parents,
    of_trees: Mapping[Device, Sequence[_Held]],
    device: Device,
    refused: Refused,
    moment: z3.ArithRef,
) -> z3.BoolRef:
    """Has no claim the device, or its PF, or one of its VFs at this moment?"""
    around = []
    for held in of_trees.get(parents[device] or device, ()):
        if not _exclude(parents, frozenset({device}), held.claim.devices):
            continue
        is_over = held.release is not None and held.release.answered < refused.called
        if held.claim.called <= refused.answered and not is_over:
            is_before_end = [moment < held.end] if held.end is not None else []
            around.append(z3.And(held.start < moment, *is_before_end))
    return z3.Not(z3.Or(*around))
