"""Assignment of devices of one host to requests: if the requests can be served, they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.filters import Affinity, Kind, satisfies
from portclaim.common.pci.matching import FreeDevice, assign, port_modes
from portclaim.common.pci.request import GroupPolicy, NumaPolicy, PciRequest

Device = FreeDevice[str]


def test_a_later_request_gets_the_only_device_that_suits_it() -> None:
    """First come, first served would give the red card to the request that accepts any card."""
    red, blue = card("red", color="red"), card("blue", color="blue")
    assert taken([any_card(1), wants(1, color="red")], [red, blue]) == [["blue"], ["red"]]


def test_a_pf_and_its_own_vf_are_never_both_taken() -> None:
    assert taken([pf(1), vf(1)], port("p", vfs=4)) is None
    assert taken([pf(1), vf(1)], port("p", vfs=4) + port("q", vfs=1)) == [["p"], ["q.0"]]


def test_a_vf_request_leaves_the_port_that_a_pf_request_needs() -> None:
    """The VF request comes first and prefers the VFs of p, but only q has 3."""
    ports = port("p", vfs=2) + port("q", vfs=3)
    assert taken([vf(3), pf(1)], ports) == [["q.0", "q.1", "q.2"], ["p"]]


def test_devices_are_taken_in_the_order_of_preference() -> None:
    ports = port("p", vfs=2) + port("q", vfs=2)
    assert taken([vf(3)], ports) == [["p.0", "p.1", "q.0"]]
    assert taken([vf(3)], ports[::-1]) == [["q.1", "q.0", "p.1"]]


def test_requests_without_tags_take_tagged_devices_last() -> None:
    tagged, plain = card("tagged", physical_network="physnet0"), card("plain")
    assert taken([any_card(1)], [tagged, plain]) == [["plain"]]
    assert taken([any_card(2)], [tagged, plain]) == [["plain", "tagged"]]


def test_isolated_devices_come_from_different_ports() -> None:
    ports = port("p", vfs=4) + port("q", vfs=4)
    assert taken([vf(2)], ports, isolate=True) == [["p.0", "q.0"]]
    assert taken([vf(3)], ports, isolate=True) is None
    assert taken([vf(1), pf(1)], ports, isolate=True) == [["p.0"], ["q"]]


def test_devices_of_near_numa_nodes_are_taken_first() -> None:
    far, unknown, near = card("far", node=1), card("unknown"), card("near", node=0)
    at_0 = Affinity(cells=frozenset({0}), sockets={0: 0, 1: 0, 2: 1})
    policies = {policy: any_card(2, policy) for policy in NumaPolicy}
    assert taken([policies[NumaPolicy.REQUIRED]], [far, unknown, near], at_0) is None
    assert taken([policies[NumaPolicy.LEGACY]], [far, unknown, near], at_0) == [["near", "unknown"]]
    assert taken([policies[NumaPolicy.SOCKET]], [far, unknown, near], at_0) == [["near", "far"]]
    assert taken([policies[NumaPolicy.PREFERRED]], [far, unknown, near], at_0) == [["near", "unknown"]]


def test_no_requests_get_no_devices() -> None:
    assert taken([], []) == []


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[PciRequest], list[Device], Affinity, GroupPolicy]:
    """A small host on which requests compete in every possible way."""
    colors = st.sampled_from(["red", "blue"])
    nodes = st.sampled_from([None, 0, 1])
    devices: list[Device] = []
    for name in draw(st.sampled_from(["", "p", "pq", "pqr"])):
        node, whole = draw(nodes), draw(st.sampled_from([True, True, True, False]))
        if whole:
            devices.append(device(name, DeviceType.PF, name, node, color=draw(colors)))
        devices += [
            device(f"{name}.{number}", DeviceType.VF, name, node, color=draw(colors))
            for number in range(draw(st.integers(0, 3)))
        ]
    devices += [
        card(f"card {number}", draw(nodes), color=draw(colors)) for number in range(draw(st.integers(0, 2)))
    ]
    alternative = st.fixed_dictionaries(
        {}, optional={"dev_type": st.sampled_from(["type-PF", "type-VF", "type-PCI"]), "color": colors}
    )
    request = st.builds(
        PciRequest,
        count=st.integers(1, 3),
        spec=st.lists(alternative, min_size=1, max_size=2).map(tuple),
        numa_policy=st.sampled_from(NumaPolicy),
    )
    affinity = st.sampled_from(
        [Affinity(), Affinity(frozenset({0}), {0: 0, 1: 0}), Affinity(frozenset({1}), {1: 0, 0: None})]
    )
    return (
        draw(st.lists(request, min_size=1, max_size=3)),
        draw(st.permutations(devices)),
        draw(affinity),
        draw(st.sampled_from(GroupPolicy)),
    )


@given(
    problem=problems(), steps=st.sampled_from([0, 1, 300]), choices_at_once=st.sampled_from([1, 4, 1 << 13])
)
@settings(max_examples=250, deadline=None)
def test_requests_are_served_correctly_if_they_can_be_served(
    problem: tuple[list[PciRequest], list[Device], Affinity, GroupPolicy], steps: int, choices_at_once: int
) -> None:
    """The budget for the search of preferred devices makes no difference."""
    requests, devices, affinity, group_policy = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(port_modes, "_STEPS_FOR_PREFERENCES", steps)
        patch.setattr(port_modes, "_CHOICES_AT_ONCE", choices_at_once)
        found = assign(requests, devices, affinity, group_policy)
    if found is None:
        assert next(every_assignment(requests, devices, affinity, group_policy), None) is None
    else:
        assert is_right(requests, found, affinity, group_policy)
        assert [len(group) for group in found] == [request.count for request in requests]


def every_assignment(
    requests: Sequence[PciRequest], devices: Sequence[Device], affinity: Affinity, policy: GroupPolicy
) -> Iterator[list[list[Device]]]:
    """All assignments, by brute force."""
    if not requests:
        yield []
        return
    for group in itertools.combinations(devices, requests[0].count):
        if is_right(requests[:1], [list(group)], affinity, policy):
            rest = [device for device in devices if not any(exclude(device, one, policy) for one in group)]
            for others in every_assignment(requests[1:], rest, affinity, policy):
                yield [list(group), *others]


def is_right(
    requests: Sequence[PciRequest],
    groups: Sequence[Sequence[Device]],
    affinity: Affinity,
    policy: GroupPolicy,
) -> bool:
    """Does every device suit its request, and does no device exclude another?"""
    return all(
        satisfies(request, device.kind)
        and affinity.distance(request.numa_policy, device.numa_node) is not None
        for request, group in zip(requests, groups, strict=True)
        for device in group
    ) and not any(
        exclude(one, other, policy)
        for one, other in itertools.combinations([device for group in groups for device in group], 2)
    )


def exclude(one: Device, other: Device, policy: GroupPolicy) -> bool:
    """Is it impossible to hold both devices?"""
    if one.key == other.key:
        return True
    if one.port is None or one.port != other.port:
        return False
    return policy is GroupPolicy.ISOLATE or DeviceType.PF in (one.kind.dev_type, other.kind.dev_type)


def taken(
    requests: Sequence[PciRequest],
    devices: Sequence[Device],
    affinity: Affinity | None = None,
    *,
    isolate: bool = False,
) -> list[list[str]] | None:
    """The keys of the devices of each request."""
    policy = GroupPolicy.ISOLATE if isolate else GroupPolicy.NONE
    found = assign(requests, devices, affinity or Affinity(), policy)
    return None if found is None else [[device.key for device in group] for group in found]


def device(key: str, dev_type: DeviceType, port: str | None, node: int | None, **tags: str) -> Device:
    return FreeDevice(key, Kind(dev_type, "8086", "1572", tags), port, node)


def card(key: str, node: int | None = None, **tags: str) -> Device:
    return device(key, DeviceType.PCI, None, node, **tags)


def port(name: str, vfs: int) -> list[Device]:
    names = [f"{name}.{number}" for number in range(vfs)]
    return [device(name, DeviceType.PF, name, None), *(device(vf, DeviceType.VF, name, None) for vf in names)]


def wants(count: int, **spec: str) -> PciRequest:
    return PciRequest(count, (spec,))


def any_card(count: int, policy: NumaPolicy = NumaPolicy.LEGACY) -> PciRequest:
    return PciRequest(count, ({"dev_type": "type-PCI"},), numa_policy=policy)


def pf(count: int) -> PciRequest:
    return wants(count, dev_type="type-PF")


def vf(count: int) -> PciRequest:
    return wants(count, dev_type="type-VF")
