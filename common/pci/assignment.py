"""Which devices of a host serve which request? Exact: if there is any assignment, one is found."""

from __future__ import annotations

import functools
import operator
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from common.pci.device import DeviceType
from common.pci.hall import Subsets
from common.pci.matching import ANYWHERE, Affinity, Kind, satisfies
from common.pci.port_modes import OpenPort, choose_whole
from common.pci.request import GroupPolicy, PciRequest

Key = TypeVar("Key", bound=Hashable)

_STEPS_FOR_A_WISH = 50
"""How long to look for a way to serve everybody else before a request has to take another device."""


@dataclass(frozen=True, slots=True)
class FreeDevice(Generic[Key]):
    """A device that could be taken. ``port`` is the key of its PF: its own for a PF, None without one.

    Only the devices of a port that can really be taken belong among the candidates: its PF only
    while none of its VFs is held.
    """

    key: Key
    kind: Kind
    port: Key | None = None
    numa_node: int | None = None


def assign(
    requests: Sequence[PciRequest],
    devices: Sequence[FreeDevice[Key]],
    affinity: Affinity = ANYWHERE,
    group_policy: GroupPolicy = GroupPolicy.NONE,
) -> list[list[FreeDevice[Key]]] | None:
    """For each request its devices, or None if the free ``devices`` of the host cannot serve them all.

    No device serves twice; a PF and a VF of its own are never both taken; under ``isolate`` no two
    devices come from one port. ``devices`` are in the order in which a packing policy would rather
    give them. Request by request, in order, each gets the devices that it would rather have, as far
    as the later ones can then still be served: near ones first (NUMA), then those with fewer tags
    (a plain request should leave special devices alone), then the packing policy's.

    Time: with 8 requests and 64 devices a few milliseconds at most, and less than one as a rule; it
    doubles with every further request that other devices do for. There is one way to make it longer:
    many ports with few VFs each, of which no two do for the same requests, asked for whole and split
    so that it hardly works out. Choosing among those is a search (see :mod:`common.pci.port_modes`);
    the hardest hosts of 64 devices that a search for such hosts has found take 0.2 s.
    """
    wishes = [_ranked(request, devices, affinity) for request in requests]
    board = _Board(requests, devices, wishes, isolate=group_policy is GroupPolicy.ISOLATE)
    if not board.is_solvable():
        return None
    return [
        [devices[place] for place in board.take_for(number, request.count, wish)]
        for number, (request, wish) in enumerate(zip(requests, wishes, strict=True))
    ]


def _ranked(request: PciRequest, devices: Sequence[FreeDevice[Key]], affinity: Affinity) -> list[int]:
    """The places of the devices that would do for the request, best first."""
    does: dict[int, bool] = {}
    ranks: list[tuple[int, int, int]] = []
    for place, device in enumerate(devices):
        distance = affinity.distance(request.numa_policy, device.numa_node)
        if distance is None:
            continue
        if id(device.kind) not in does:
            does[id(device.kind)] = satisfies(request, device.kind)
        if does[id(device.kind)]:
            ranks.append((distance, device.kind.keys, place))
    return [place for _, _, place in sorted(ranks)]


@dataclass(slots=True)
class _Port:
    """A port during the assignment.

    ``supply`` is what the port gives as one device, whichever is taken, or None where it gives its
    PF or any number of VFs. ``choice`` is that choice while it is open. ``closed``: nothing is left.
    """

    supply: int | None = None
    choice: OpenPort | None = None
    closed: bool = False


class _Board(Generic[Key]):
    """All requests, devices and ports, and what was taken so far.

    Requests for which the same devices do, in the same order, are one group; a mask of requests is
    one of groups. ``_surpluses`` says for each subset of them how many devices are left beyond what
    it still asks for, every open choice counted at its best. ``_whole`` are ports that could be
    given whole so that everybody is served: there is always a way to go on from here.
    """

    def __init__(
        self,
        requests: Sequence[PciRequest],
        devices: Sequence[FreeDevice[Key]],
        wishes: Sequence[Sequence[int]],
        *,
        isolate: bool,
    ) -> None:
        self._devices = devices
        groups: dict[tuple[int, ...], int] = {}
        self._group_of = [groups.setdefault(tuple(wish), len(groups)) for wish in wishes]
        self._masks = [0] * len(devices)
        for wish, group in groups.items():
            for place in wish:
                self._masks[place] |= 1 << group
        self._taken: set[int] = set()
        self._whole: frozenset[Key] = frozenset()
        ports = self._by_port()
        counts = [0] * len(groups)
        for request, group in zip(requests, self._group_of, strict=True):
            counts[group] += request.count
        most_vfs = max((len(vfs) for _, vfs in ports.values()), default=0)
        self._subsets = Subsets(len(groups), (len(devices) + sum(counts)) * (most_vfs + 1))
        self._surpluses = self._subsets.guards - self._subsets.demand(counts)
        self._ports: dict[Key, _Port] = {}
        for key, (pf, vfs) in ports.items():
            if isolate or (pf and len(vfs) == 1):
                supply = self._subsets.supply(functools.reduce(operator.or_, vfs, pf))
                self._ports[key] = _Port(supply=supply)
                self._surpluses += supply
            elif pf and vfs:
                choice = OpenPort.of(self._subsets, pf, vfs)
                self._ports[key] = _Port(choice=choice)
                self._surpluses += choice.best
        for device, mask in zip(devices, self._masks, strict=True):
            if device.port not in self._ports:
                self._surpluses += self._subsets.supply(mask)

    def is_solvable(self) -> bool:
        """Can all that is asked for be served? This takes as many steps as it must."""
        whole = choose_whole(self._subsets, self._surpluses, self._open_ports(None))
        self._whole = whole or frozenset()
        return whole is not None

    def take_for(self, request: int, count: int, wish: Sequence[int]) -> list[int]:
        """The first ``count`` places of ``wish`` that can be taken so that all else can still be served.

        A place passed over for lack of time can be needed after all, once others are taken. Every
        pass takes one at least: those that the known way to go on has for the request.
        """
        places: list[int] = []
        while len(places) < count:
            found = self._pass(request, count - len(places), wish)
            if not found:
                raise RuntimeError(f"request {request} can be served, but nothing is left in {wish}")
            places += found
        return places

    def _pass(self, request: int, count: int, wish: Iterable[int]) -> list[int]:
        """Try each place once, or one of those alike; take at most ``count``."""
        places: list[int] = []
        hopeless: set[tuple[Key | None, DeviceType, int]] = set()
        for place in wish:
            if len(places) == count:
                break
            device = self._devices[place]
            alike = (
                device.port if device.port in self._ports else None,
                device.kind.dev_type,
                self._masks[place],
            )
            if place in self._taken or alike in hopeless:
                continue
            if self._take(place, request):
                places.append(place)
            else:
                hopeless.add(alike)
        return places

    def _by_port(self) -> dict[Key, tuple[int, list[int]]]:
        """For each port the requests that its PF does for, and those of each of its useful VFs."""
        ports: dict[Key, tuple[int, list[int]]] = {}
        for device, mask in zip(self._devices, self._masks, strict=True):
            if device.port is None or not mask:
                continue
            pf, vfs = ports.get(device.port, (0, []))
            if device.kind.dev_type is DeviceType.PF:
                pf = mask
            else:
                vfs.append(mask)
            ports[device.port] = pf, vfs
        return ports

    def _take(self, place: int, request: int) -> bool:
        """Take a device for a request, unless something could then not be served."""
        device = self._devices[place]
        whole = device.kind.dev_type is DeviceType.PF
        port = None if device.port is None else self._ports.get(device.port)
        left = self._surpluses + self._subsets.supply(1 << self._group_of[request])
        if port is None:
            left -= self._subsets.supply(self._masks[place])
        elif port.closed or (whole and port.supply is None and port.choice is None):
            return False
        elif port.supply is not None:
            left -= port.supply
        elif whole and port.choice is not None:
            left -= port.choice.best
        else:
            left -= self._subsets.supply(self._masks[place])
            left -= port.choice.split_loss if port.choice is not None else 0
        whole_ports = choose_whole(
            self._subsets, left, self._open_ports(port), self._whole, _STEPS_FOR_A_WISH
        )
        if whole_ports is None:
            return False
        self._surpluses, self._whole = left, whole_ports
        self._taken.add(place)
        if port is not None:
            port.choice = None
            port.closed = whole or port.supply is not None
        return True

    def _open_ports(self, decided: _Port | None) -> dict[Key, OpenPort]:
        return {
            key: port.choice
            for key, port in self._ports.items()
            if port.choice is not None and port is not decided
        }
