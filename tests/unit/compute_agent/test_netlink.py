"""Routes as the kernel writes them: rtnetlink(7)."""

import struct
from pathlib import Path

import pytest

from portclaim.services.compute_agent.netlink import _leaves_by, _mac, permanent_addresses


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
def test_default_routes_give_their_interfaces(body: bytes, interfaces: list[int]) -> None:
    assert list(_leaves_by(body)) == interfaces


def link(*attributes: bytes) -> bytes:
    return struct.pack("=BxHiII", 0, 1, 2, 0x1003, 0) + b"".join(attributes)


MAC = bytes.fromhex("525400aa0001")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (link(attribute(3, b"enp1s0\0"), attribute(1, bytes(6)), attribute(54, MAC)), "52:54:00:aa:00:01"),
        (link(attribute(3, b"enp1s0\0"), attribute(1, MAC)), None),
        (link(), None),
    ],
    ids=["with one", "a kernel that tells none", "nothing"],
)
def test_permanent_macs_are_read_by_interface_name(body: bytes, told: str | None) -> None:
    assert dict(_mac(body)) == ({} if told is None else {"enp1s0": told})


def test_the_kernel_gives_the_same_macs_as_sysfs() -> None:
    """If a card uses its own MAC (``addr_assign_type`` 0), sysfs shows the same one."""
    told = permanent_addresses()
    for net in Path("/sys/class/net").iterdir():
        if net.name in told and (net / "addr_assign_type").read_text().strip() == "0":
            assert told[net.name] == (net / "address").read_text().strip()
