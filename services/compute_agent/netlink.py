"""What sysfs does not show of network interfaces: default routes and permanent MACs, from rtnetlink(7)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_NEXT_HOP = struct.Struct("=HBBi")  # length, flags, hops, interface
_NETLINK_ROUTE = 0
_ERROR, _DONE = 2, 3
_NEW_LINK, _GET_LINK, _NEW_ROUTE, _GET_ROUTE = 16, 18, 24, 26
_REQUEST, _DUMP, _INTERRUPTED = 0x1, 0x300, 0x10
_OIF, _MULTIPATH = 4, 9
_IF_NAME, _PERM_ADDRESS = 3, 54
_UNICAST = 1
_BUFFER = 1 << 18


def default_route_interfaces() -> frozenset[int]:
    """The indexes of all interfaces of default routes, in any table and of any protocol.

    Raises OSError where the kernel does not answer.
    """
    routes = _dump(_GET_ROUTE, _NEW_ROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))
    return frozenset(interface for route in routes for interface in _leaves_by(route))


def permanent_addresses() -> Mapping[str, str]:
    """The permanent MACs of cards by interface name. Kernels before 5.6 do not show them.

    Raises OSError where the kernel does not answer.
    """
    return dict(
        pair for link in _dump(_GET_LINK, _NEW_LINK, _LINK.pack(0, 0, 0, 0, 0)) for pair in _mac(link)
    )


def _dump(request: int, answer: int, question: bytes) -> list[bytes]:
    """A whole table, as it was at one moment."""
    while (found := _try_to_dump(request, answer, question)) is None:
        pass  # the table changed while the kernel sent it: ask again
    return found


def _try_to_dump(request: int, answer: int, question: bytes) -> list[bytes] | None:
    bodies: list[bytes] = []
    consistent = True
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as kernel:
        kernel.settimeout(5.0)
        kernel.send(_HEADER.pack(_HEADER.size + len(question), request, _REQUEST | _DUMP, 1, 0) + question)
        while True:
            for kind, flags, body in _messages(kernel.recv(_BUFFER)):
                consistent = consistent and not flags & _INTERRUPTED
                if kind == _DONE:
                    return bodies if consistent else None
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise OSError(code, os.strerror(code))
                if kind == answer:
                    bodies.append(body)


def _mac(link: bytes) -> Iterator[tuple[str, str]]:
    """An interface's name and permanent MAC, if it has one."""
    attributes = dict(_attributes(link[_LINK.size :]))
    if _PERM_ADDRESS in attributes and _IF_NAME in attributes:
        yield (
            attributes[_IF_NAME].rstrip(b"\0").decode("ascii", "replace"),
            attributes[_PERM_ADDRESS].hex(":"),
        )


def _leaves_by(route: bytes) -> Iterator[int]:
    """The interfaces of a default route; none for any other route."""
    _, dst_len, _, _, _, _, _, kind, _ = _ROUTE.unpack_from(route)
    if dst_len or kind != _UNICAST:
        return
    for attribute, value in _attributes(route[_ROUTE.size :]):
        if attribute == _OIF:
            yield struct.unpack_from("=I", value)[0]
        elif attribute == _MULTIPATH:
            at = 0
            while at + _NEXT_HOP.size <= len(value):
                length, _, _, interface = _NEXT_HOP.unpack_from(value, at)
                yield interface
                at += max(_aligned(length), _NEXT_HOP.size)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        yield kind, flags, data[at + _HEADER.size : at + length]
        at += max(_aligned(length), _HEADER.size)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind, data[at + _ATTRIBUTE.size : at + length]
        at += max(_aligned(length), _ATTRIBUTE.size)


def _aligned(length: int) -> int:
    return length + 3 & ~3
