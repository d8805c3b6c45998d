"""Concurrent claims and releases are answered as if they had happened one after the other."""

import time
from collections.abc import Mapping, Sequence
from itertools import accumulate, permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import at_once
from tests.support.counting import hosts_are_counted
from tests.support.effort import IS_LONG, short_or_long
from tests.support.fleet import Fleet, Host, pf, vf
from tests.support.holds import Device, Event, Freed, Holding, Holds, Refused, Served
from tests.support.invariants import violations
from tests.support.linearizability import Operation, Undecided, legal_order
from tests.support.model_host import ALIASES, Free
from tests.support.solver import has_legal_order

THREADS = 32
CLAIMS = short_or_long(10, 100)  # of each thread
SEEDS = range(short_or_long(2, 20))
ALIAS_SPECS = ["nic-vf:1", "nic-vf:1", "nic-vf:2", "nic-pf:1", "nic-pf:1", "nic-pf:1,nic-vf:1"]
PORTS, VFS = 2, 3


def ports(number: int, vfs: int) -> list[Free]:
    """This many free ports with this many VFs each."""
    [pf_kind], [vf_kind] = ALIASES["nic-pf"], ALIASES["nic-vf"]
    return [
        device
        for port in range(number)
        for device in [
            Free(pf(port), pf_kind),
            *(Free(vf(port, number), vf_kind, parent=pf(port)) for number in range(vfs)),
        ]
    ]


def parents(fleet: Mapping[str, Sequence[Free]]) -> dict[Device, Device | None]:
    """All devices, each with the PF of a VF."""
    return {
        (host, device.address): (host, device.parent) if device.parent else None
        for host, devices in fleet.items()
        for device in devices
    }


class TestThreads:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_the_answers_to_all_threads_have_a_legal_order(self, fleet: Fleet, seed: int) -> None:
        hosts = {name: fleet.host(name, PORTS, VFS) for name in ("h1", "h2")}
        with hosts_are_counted(fleet):
            histories = at_once(
                [lambda n=n: live(fleet, hosts, Random(f"{seed} {n}")) for n in range(THREADS)]
            )
        assert [broken for broken in histories if isinstance(broken, Exception)] == []
        history = [event for events in histories for event in events]
        with fleet.engine.connect() as connection:
            assert violations(connection) == []
        fleet_devices = {name: ports(PORTS, VFS) for name in hosts}
        assert Holds(fleet_devices).legal_order(history)
        assert has_legal_order(parents(fleet_devices), history)
        assert {type(event) for event in history} == {Served, Freed, Refused}


def live(fleet: Fleet, hosts: dict[str, Host], random: Random) -> list[Event]:
    """Claim and release in turn, sometimes several at once; return the answers and their times."""
    events: list[Event] = []
    for _ in range(CLAIMS):
        aliases = random.choices(ALIAS_SPECS, k=random.choice([1, 1, 1, 3]))
        called = time.perf_counter_ns()
        results = fleet.claim_many(aliases) if len(aliases) > 1 else [claim_or_refusal(fleet, *aliases)]
        answered = time.perf_counter_ns()
        held: dict[str, list[tuple[Claim, Served]]] = {}
        for alias, result in zip(aliases, results, strict=True):
            if not isinstance(result, Claim):
                assert isinstance(result, ClaimRefused), result
                events.append(Refused(called, answered, alias))
                continue
            devices = frozenset((result.host, device.address) for device in result.devices)
            held.setdefault(result.host, []).append((result, Served(called, answered, devices)))
            events.append(held[result.host][-1][1])
        for host, claims in held.items():
            events += end(fleet, hosts[host], claims, random)
    return events


def claim_or_refusal(fleet: Fleet, alias: str) -> Claim | ClaimRefused:
    try:
        return fleet.claim(alias)
    except ClaimRefused as refused:
        return refused


def end(fleet: Fleet, host: Host, claims: list[tuple[Claim, Served]], random: Random) -> list[Event]:
    """Release claims of one host. Its agent answers, for several in one message."""

    def done(step: int) -> None:
        if len(claims) > 1:
            assert host.ends(*(claim for claim, _ in claims), step=step) == []
        else:
            host.done(claims[0][0], step=step)

    if random.random() < 0.5:
        done(1)
    fleet.scheduler.release_many([claim.claim_id for claim, _ in claims])
    called = time.perf_counter_ns()
    done(2)
    return [Freed(called, time.perf_counter_ns(), served) for _, served in claims]


SMALL = {"h1": ports(2, 2)}
HOLDS = Holds(SMALL)
PF0, PF1, VF00, VF01, VF10 = (("h1", address) for address in (pf(0), pf(1), vf(0, 0), vf(0, 1), vf(1, 0)))


def served(called: int, answered: int, *devices: Device) -> Served:
    return Served(called, answered, frozenset(devices))


@st.composite
def histories(draw: st.DrawFn) -> Sequence[Event]:
    """A few events. Callers release only claims whose devices they know."""
    waits = st.lists(st.integers(1, 6), min_size=4, max_size=4).map(accumulate).map(tuple)
    devices = st.sampled_from([(PF0,), (PF1,), (VF00,), (VF10,), (VF00, VF10), (PF0, VF10)])
    history: list[Event] = []
    for number in range(draw(st.integers(1, 3))):
        called, answered, freeing, freed = (5 * number + wait for wait in draw(waits))
        claim = served(called, answered, *draw(devices))
        history.append(claim)
        if draw(st.booleans()):
            history.append(Freed(freeing, freed, claim))
    for called, answered, *_ in draw(st.lists(waits, max_size=6 - len(history))):
        alias = draw(st.sampled_from(["nic-vf:1", "nic-vf:4", "nic-pf:1", "nic-pf:2", "nic-pf:1,nic-vf:1"]))
        history.append(Refused(2 * called, 2 * answered + 1, alias))
    return history


def is_legal(order: Sequence[Event]) -> bool:
    """Is there an order of the events in which all answers are right?"""
    held: Holding | None = frozenset()
    for number, event in enumerate(order):
        if held is None or any(later.answered < event.called for later in order[number:]):
            return False
        held = HOLDS.take(event, held)
    return held is not None


class TestChecker:
    """Histories written by hand, on two ports with two VFs each."""

    def test_events_one_after_the_other_are_legal(self) -> None:
        first, second = served(0, 1, PF0), served(4, 5, VF00)
        assert HOLDS.legal_order([first, Freed(2, 3, first), second]) == [0, 1, 2]

    def test_a_device_held_by_two_claims_is_illegal(self) -> None:
        first = served(0, 1, VF00)
        assert not HOLDS.legal_order([first, served(2, 3, VF00)])
        assert not HOLDS.legal_order([first, served(2, 3, VF00), Freed(4, 5, first)])
        assert not HOLDS.legal_order([first, served(0, 1, VF00, VF10)])

    def test_a_vf_held_together_with_its_pf_is_illegal(self) -> None:
        assert not HOLDS.legal_order([served(0, 2, VF00), served(1, 3, PF0)])
        assert not HOLDS.legal_order([served(0, 2, PF0, VF01)])
        assert HOLDS.legal_order([served(0, 2, VF00), served(1, 3, PF1)])

    def test_refusing_a_held_device_is_legal(self) -> None:
        held = [served(0, 1, VF00), served(0, 1, VF10)]
        assert HOLDS.legal_order([*held, Refused(2, 3, "nic-pf:1")])
        assert HOLDS.legal_order([*held, Refused(2, 3, "nic-pf:1,nic-vf:1")])

    def test_refusing_a_device_that_was_free_all_the_time_is_illegal(self) -> None:
        held = [served(0, 1, VF00), served(0, 1, VF01)]
        for alias in ("nic-pf:1", "nic-vf:1", "nic-vf:2"):
            assert not HOLDS.legal_order([*held, Refused(2, 3, alias)])
        assert not HOLDS.legal_order([served(0, 1, PF0), Refused(2, 3, "nic-vf:2")])

    def test_refusing_a_device_released_before_is_illegal(self) -> None:
        first, second = served(0, 1, PF0), served(0, 1, PF1)
        held = [first, second, Freed(2, 9, first)]
        assert HOLDS.legal_order([*held, Refused(3, 4, "nic-vf:1")])
        assert not HOLDS.legal_order([*held, Refused(10, 11, "nic-vf:1")])

    def test_refusing_a_device_claimed_only_later_is_illegal(self) -> None:
        first, second = served(0, 1, PF0), served(4, 5, PF1)
        assert not HOLDS.legal_order([first, second, Refused(2, 3, "nic-vf:1")])
        assert HOLDS.legal_order([first, second, Refused(2, 4, "nic-vf:1")])

    def test_a_release_may_take_effect_at_any_moment_of_its_call(self) -> None:
        first, second = served(0, 1, PF0), served(0, 1, PF1)
        freed = Freed(2, 20, first)
        # Once the VF is claimed, the port is not whole; before that, no VF is free.
        third = served(3, 19, VF00)
        assert HOLDS.legal_order([first, second, freed, third, Refused(4, 5, "nic-vf:1")])
        assert HOLDS.legal_order([first, second, freed, third, Refused(17, 18, "nic-pf:1")])
        assert not HOLDS.legal_order([first, second, freed, third, Refused(20, 21, "nic-vf:1")])

    def test_an_order_of_two_releases_may_explain_two_refusals(self) -> None:
        first, second = served(0, 1, PF0), served(0, 1, PF1)
        freed = [Freed(2, 20, first), Freed(2, 20, second)]
        after = [served(3, 19, VF00), served(3, 19, VF10)]
        refused = [Refused(4, 5, "nic-vf:2"), Refused(6, 18, "nic-pf:1")]
        assert HOLDS.legal_order([first, second, *freed, *after, *refused])
        assert not HOLDS.legal_order([first, second, *freed, *after, Refused(20, 21, "nic-vf:1")])

    @given(history=histories())
    @settings(derandomize=not IS_LONG, max_examples=short_or_long(150, 5_000), deadline=None, database=None)
    def test_the_checker_and_the_solver_agree_with_trying_all_orders(self, history: Sequence[Event]) -> None:
        is_right = any(map(is_legal, permutations(history)))
        assert bool(HOLDS.legal_order(history)) == is_right
        assert has_legal_order(parents(SMALL), history) == is_right

    def test_the_checker_gives_up_after_too_many_steps(self) -> None:
        operations = [Operation(0, 9, lambda n, bit=bit: n | 1 << bit) for bit in range(12)]
        with pytest.raises(Undecided):
            legal_order([*operations, Operation(0, 9, lambda _: None)], 0, steps=100)
