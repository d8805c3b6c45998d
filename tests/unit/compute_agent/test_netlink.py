"""Routes as the kernel writes them: rtnetlink(7)."""

import struct

import pytest

from services.compute_agent.netlink import _leaves_by


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def route(dst_len: int, *attributes: bytes, kind: int = 1) -> bytes:
    return struct.pack("=BBBBBBBBI", 2, dst_len, 0, 0, 254, 3, 0, kind, 0) + b"".join(attributes)


def next_hop(interface: int) -> bytes:
    gateway = attribute(5, bytes([10, 0, 0, 1]))
    return struct.pack("=HBBi", 8 + len(gateway), 0, 0, interface) + gateway


@pytest.mark.parametrize(
    ("body", "interfaces"),
    [
        (route(0, attribute(15, b"\0\0\0\xfe"), attribute(4, struct.pack("=I", 7))), [7]),
        (route(24, attribute(4, struct.pack("=I", 7))), []),
        (route(0, attribute(4, struct.pack("=I", 7)), kind=7), []),
        (route(0, attribute(9, next_hop(3) + next_hop(300))), [3, 300]),
        (route(0), []),
    ],
    ids=["default", "of a network", "unreachable", "two ways", "no way"],
)
def test_a_default_route_leaves_by_its_interfaces(body: bytes, interfaces: list[int]) -> None:
    assert list(_leaves_by(body)) == interfaces
