"""Hall's condition in one integer, and the choice between whole ports and VFs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portclaim.common.pci.matching import assign, port_modes
from portclaim.common.pci.matching.lagrangian import raise_multipliers
from portclaim.common.pci.matching.port_modes import OpenPorts, PortModes
from portclaim.common.pci.matching.subsets import Subsets
from tests.support.hostile_hosts import Host, Port, as_devices, climb, hostile, work

WORK = 2_000
"""The most steps that 64 devices and 8 requests may take. Where a determined search for hard hosts ended,
it was 1,674 of them and 10 ms of CPU, 2 ms of that for all else: :data:`HARDEST` has its hosts, and those
of searches against earlier ways to choose. ``python -m bench.run --parts matching`` goes on.
"""

HARDEST = (Path(__file__).parent / "hardest_hosts.txt").read_text().splitlines()
"""A host on each line, see :class:`tests.support.hostile_hosts.Host`."""


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.lists(st.integers(0, 31), max_size=12))
def test_the_surpluses_of_all_subsets_are_counted_at_once(counts: list[int], masks: list[int]) -> None:
    subsets = Subsets(len(counts), sum(counts) + len(masks))
    masks = [mask & subsets.all_requests for mask in masks]
    surpluses = subsets.guards - subsets.demand(counts) + sum(subsets.supply(mask) for mask in masks)
    expected = [
        sum(bool(mask & subset) for mask in masks)
        - sum(count for number, count in enumerate(counts) if subset >> number & 1)
        for subset in range(subsets.all_requests + 1)
    ]
    assert [subsets.surplus(surpluses, subset) for subset in range(subsets.all_requests + 1)] == expected
    assert subsets.none_short(surpluses) == all(number >= 0 for number in expected)
    shortest = subsets.shortest(surpluses)
    if min(expected) >= 0:
        assert shortest is None
    else:
        assert shortest == max(subset for subset, number in enumerate(expected) if number == min(expected))


masks = st.integers(1, 15)
a_port = st.builds(Port, masks, st.lists(masks, min_size=2, max_size=3).map(tuple))
some_ports = st.lists(a_port, min_size=1, max_size=6)
some_counts = st.lists(st.integers(0, 4), min_size=4, max_size=4)


@given(some_ports, some_counts, st.sampled_from([1, 4, 16, 1 << 13]), st.sampled_from([0, 2, 8]))
@settings(max_examples=400, deadline=None)
def test_a_choice_is_found_if_there_is_one(
    ports: list[Port], counts: list[int], choices_at_once: int, without_bound: int
) -> None:
    """This holds for any number of ports decided at once, with and without multipliers for the others."""
    subsets, surpluses, kinds = opened(ports, counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(port_modes, "_CHOICES_AT_ONCE", choices_at_once)
        patch.setattr(port_modes, "_SEARCHED_WITHOUT_BOUND", without_bound)
        modes = PortModes(subsets, kinds)
        assert modes.is_possible(surpluses) == any_choice(subsets, surpluses, kinds)


@given(some_ports, some_counts, st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=6))
@settings(max_examples=200, deadline=None)
def test_narrowing_always_leaves_a_possible_choice(
    ports: list[Port], counts: list[int], preferences: list[tuple[int, bool]]
) -> None:
    subsets, surpluses, kinds = opened(ports, counts)
    modes = PortModes(subsets, kinds)
    if not modes.is_possible(surpluses):
        return
    for number, whole in preferences:
        kind = kinds[number % len(kinds)]
        before = kind.allowed
        possible = modes.narrow(surpluses, kind, whole=whole)
        after = range(before.start, before.stop - 1) if whole else range(before.start + 1, before.stop)
        kind.least, kind.most = after.start, after.stop - 1
        assert possible == any_choice(subsets, surpluses, kinds)
        if not possible:
            kind.least, kind.most = before.start, before.stop - 1


@given(some_ports, some_counts)
@settings(max_examples=200, deadline=None)
def test_a_choice_costs_at_most_the_capacity(ports: list[Port], counts: list[int]) -> None:
    subsets, surpluses, kinds = opened(ports, counts)
    options, allowed = [kind.losses() for kind in kinds], [kind.allowed for kind in kinds]
    multipliers, choice = raise_multipliers(subsets, surpluses, options, allowed)
    if choice is not None:
        taken = sum(losses[split] for losses, split in zip(options, choice, strict=True))
        assert subsets.none_short(surpluses - taken)
    elif any_choice(subsets, surpluses, kinds):
        assert multipliers.least_costs(allowed)[0] <= multipliers.capacity(subsets, surpluses)


@pytest.mark.parametrize("seed", range(5))
def test_multipliers_prove_that_many_ports_cannot_be_both_whole_and_split(seed: int) -> None:
    """60 ports, no two of whose VFs suit the same requests. The requests are for 30 PFs and 61 VFs."""
    chance = random.Random(seed)
    ports = [Port(1, (chance.randrange(2, 256, 2), chance.randrange(2, 256, 2))) for _ in range(60)]
    counts = (30, 8, 8, 9, 9, 9, 9, 9)
    assert work(Host(tuple(ports), counts)) == 1


def test_the_search_for_preferences_ends_after_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests are served all the same."""
    hosts = [host for host in map(Host.parse, HARDEST) if assign(*as_devices(host))]
    assert hosts
    for host in hosts:
        monkeypatch.setattr(port_modes, "_STEPS_FOR_PREFERENCES", 0)
        found = assign(*as_devices(host))
        assert found is not None
        assert tuple(map(len, found)) == host.counts


@pytest.mark.parametrize("seed", range(60))
def test_64_devices_and_8_requests_take_few_steps(seed: int) -> None:
    """All ports differ, and the requests take every port whole or split."""
    assert work(hostile(random.Random(seed))) < WORK


@pytest.mark.parametrize("text", HARDEST, ids=range(len(HARDEST)))
def test_the_hardest_known_hosts_take_few_steps(text: str) -> None:
    host = Host.parse(text)
    assert host.devices <= 64
    assert len(host.counts) == 8
    assert work(host) < WORK


def test_a_search_for_hard_hosts_finds_none_that_takes_many_steps() -> None:
    """A short one."""
    chance = random.Random(0)
    assert work(climb(hostile(chance), 100, chance)) < WORK


def opened(ports: Sequence[Port], counts: Sequence[int]) -> tuple[Subsets, int, list[OpenPorts]]:
    """The ports before the choice, grouped by kind, and the surpluses with each port at its best."""
    subsets = Subsets(len(counts), sum(port.devices for port in ports) + sum(counts))
    kinds: dict[Port, OpenPorts] = {}
    for port in ports:
        kinds.setdefault(port, OpenPorts.of(subsets, port.pf, port.vfs)).add()
    best = sum(kind.count * kind.best for kind in kinds.values())
    return subsets, subsets.guards - subsets.demand(counts) + best, list(kinds.values())


def any_choice(subsets: Subsets, surpluses: int, kinds: Sequence[OpenPorts]) -> bool:
    """Is there a choice that leaves no subset short? Found by brute force."""
    return any(
        subsets.none_short(
            surpluses - sum(kind.losses()[split] for kind, split in zip(kinds, choice, strict=True))
        )
        for choice in itertools.product(*(kind.allowed for kind in kinds))
    )
