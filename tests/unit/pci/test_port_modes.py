"""Hall's condition in one integer, and the choice between whole ports and VFs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.pci.assignment import FreeDevice, assign
from common.pci.device import DeviceType
from common.pci.hall import Subsets
from common.pci.matching import Kind
from common.pci.port_modes import OpenPort, choose_whole
from common.pci.request import PciRequest

Port = tuple[int, list[int]]
"""The requests that its PF does for, and those of each VF, as masks."""


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.lists(st.integers(0, 31), max_size=12))
def test_numbers_of_all_subsets_are_counted_at_once(counts: list[int], masks: list[int]) -> None:
    subsets = Subsets(len(counts), sum(counts) + len(masks))
    masks = [mask & subsets.everyone for mask in masks]
    surpluses = subsets.guards - subsets.demand(counts) + sum(subsets.supply(mask) for mask in masks)
    expected = [
        sum(bool(mask & subset) for mask in masks)
        - sum(count for number, count in enumerate(counts) if subset >> number & 1)
        for subset in range(subsets.everyone + 1)
    ]
    assert [subsets.surplus(surpluses, subset) for subset in range(subsets.everyone + 1)] == expected
    assert subsets.none_short(surpluses) == all(number >= 0 for number in expected)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=8, max_size=8))
def test_the_smaller_numbers_are_taken_subset_by_subset(pairs: list[tuple[int, int]]) -> None:
    subsets = Subsets(3, 100)
    one, other = (
        sum(number << 16 * place for place, number in enumerate(row)) for row in zip(*pairs, strict=True)
    )
    assert list(subsets.each(subsets.least(one, other))) == [min(pair) for pair in pairs]
    assert subsets.cap(one | subsets.guards, other) == subsets.least(one, other) | subsets.guards


masks = st.integers(1, 15)
ports = st.lists(st.tuples(masks, st.lists(masks, min_size=2, max_size=3)), min_size=1, max_size=6)


@given(ports, st.lists(st.integers(0, 4), min_size=4, max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_choice_is_found_if_there_is_any(ports: list[Port], counts: list[int]) -> None:
    subsets, surpluses, open_ports = opened(ports, counts)
    whole = choose_whole(subsets, surpluses, open_ports)
    choices = [
        set(choice)
        for size in range(len(ports) + 1)
        for choice in itertools.combinations(open_ports, size)
        if subsets.none_short(surpluses - losses(open_ports, set(choice)))
    ]
    assert (whole in choices) if choices else whole is None


def test_a_search_may_take_only_so_many_steps() -> None:
    subsets, surpluses, open_ports = opened(*hostile(random.Random(0), served=False))
    assert choose_whole(subsets, surpluses, open_ports, max_steps=3) is None


class Counting(Subsets):
    """Counts what a search does most."""

    looks = 0

    def none_short(self, surpluses: int) -> bool:
        Counting.looks += 1
        return super().none_short(surpluses)


@pytest.mark.parametrize("seed", range(60))
def test_64_devices_and_8_requests_take_few_steps(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports all unlike, asked for whole and split to the last device. A look takes about a microsecond."""
    monkeypatch.setattr("common.pci.assignment.Subsets", Counting)
    Counting.looks = 0
    ports, counts = hostile(random.Random(seed), served=seed % 2 == 0)
    assign(*as_devices(ports, counts))
    assert Counting.looks < 2_000


def opened(ports: Sequence[Port], counts: Sequence[int]) -> tuple[Subsets, int, dict[int, OpenPort]]:
    subsets = Subsets(len(counts), (64 + sum(counts)) * 16)
    open_ports = {number: OpenPort.of(subsets, *port) for number, port in enumerate(ports)}
    surpluses = subsets.guards - subsets.demand(counts) + sum(port.best for port in open_ports.values())
    return subsets, surpluses, open_ports


def losses(ports: dict[int, OpenPort], whole: set[int]) -> int:
    return sum(port.whole_loss if key in whole else port.split_loss for key, port in ports.items())


def hostile(random: random.Random, *, served: bool) -> tuple[list[Port], list[int]]:
    """A host of 64 devices on which 8 requests, up to 4 of them for whole ports, compete."""
    for_ports = random.choice([1, 1, 2, 3, 4])
    count = random.choice([8, 10, 12, 16, 21])
    vfs = (64 - count) // count
    alike = random.random() < 0.5
    ports: list[Port] = []
    for _ in range(count):
        masks = [random.randrange(1, 1 << 8 - for_ports) << for_ports for _ in range(vfs)]
        ports.append((random.randrange(1, 1 << for_ports), masks[:1] * vfs if alike else masks))
    whole = random.randrange(for_ports, count)
    counts = [1] * 8
    for _ in range(whole - for_ports):
        counts[random.randrange(for_ports)] += 1
    for _ in range((count - whole) * vfs - 8 + for_ports + (-2 if served else 1)):
        counts[random.randrange(for_ports, 8)] += 1
    return ports, counts


def as_devices(
    ports: Sequence[Port], counts: Sequence[int]
) -> tuple[list[PciRequest], list[FreeDevice[str]]]:
    """Requests and devices that do for each other as the masks say, by tags."""
    kinds: dict[tuple[DeviceType, int], Kind] = {}

    def kind(dev_type: DeviceType, mask: int) -> Kind:
        tags = {f"for {number}": "yes" for number in range(8) if mask >> number & 1}
        return kinds.setdefault((dev_type, mask), Kind(dev_type, "8086", "1572", tags))

    devices: list[FreeDevice[str]] = []
    for number, (pf, vfs) in enumerate(ports):
        name = f"port {number}"
        devices.append(FreeDevice(name, kind(DeviceType.PF, pf), name))
        devices += [
            FreeDevice(f"{name}.{vf}", kind(DeviceType.VF, mask), name) for vf, mask in enumerate(vfs)
        ]
    requests = []
    for number, count in enumerate(counts):
        dev_type = "type-PF" if any(pf >> number & 1 for pf, _ in ports) else "type-VF"
        requests.append(PciRequest(count, ({"dev_type": dev_type, f"for {number}": "yes"},)))
    return requests, devices
