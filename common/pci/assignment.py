"""Which devices of a host serve which request? Exact: if there is any assignment, one is found."""

from __future__ import annotations

import functools
import operator
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.hall import Subsets
from portclaim.common.pci.matching import ANYWHERE, Affinity, Kind, satisfies
from portclaim.common.pci.port_modes import OpenPorts, PortModes
from portclaim.common.pci.request import GroupPolicy, PciRequest

Key = TypeVar("Key", bound=Hashable)


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

    If there is an assignment, one is found. What a request would rather have is looked for in a bounded
    number of steps, after which it takes what goes with an assignment that is known.

    Time: with 8 requests and 64 devices 2 ms of CPU or so, and 10 on the hardest hosts that a long
    search for such hosts has found: 21 ports with 2 VFs each, asked for whole and split so that it
    hardly works out. There is no proof that none is harder; choosing among such ports contains exact
    cover (see :mod:`portclaim.common.pci.port_modes`). It doubles with every further request that other
    devices do for.
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
    keys_of: dict[int, int | None] = {}
    ranks: list[tuple[int, int, int]] = []
    for place, device in enumerate(devices):
        distance = affinity.distance(request.numa_policy, device.numa_node)
        if distance is None:
            continue
        kind = device.kind
        if id(kind) not in keys_of:
            keys_of[id(kind)] = kind.keys if satisfies(request, kind) else None
        keys = keys_of[id(kind)]
        if keys is not None:
            ranks.append((distance, keys, place))
    return [place for _, _, place in sorted(ranks)]


@dataclass(slots=True)
class _Port:
    """A port during the assignment, of those that cannot give all their devices at once.

    ``supply`` is what it adds at its best, ``whole_loss`` what goes of that with its PF. ``one``: it
    gives one device, whichever is taken. ``open`` are the ports that it is one of while it could
    be needed either way.
    """

    supply: int
    whole_loss: int
    one: bool = False
    open: OpenPorts | None = None
    split: bool = False
    closed: bool = False


class _Board(Generic[Key]):
    """All requests, devices and ports, and what was taken so far.

    Requests for which the same devices do, in the same order, are one group; a mask of requests is
    one of groups. ``_surpluses`` says for each subset of them how many devices are left beyond what
    it still asks for, every open port counted at its best; ``_modes`` knows how to go on from there.
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
        counts = [0] * len(groups)
        for request, group in zip(requests, self._group_of, strict=True):
            counts[group] += request.count
        self._subsets = Subsets(len(groups), len(devices) + sum(counts))
        self._ports, alike = self._find_ports(isolate=isolate)
        self._modes = PortModes(self._subsets, alike)
        self._surpluses = self._subsets.guards - self._subsets.demand(counts)
        self._surpluses += sum(port.supply for port in self._ports.values())
        for device, mask in zip(devices, self._masks, strict=True):
            if device.port not in self._ports:
                self._surpluses += self._subsets.supply(mask)

    def is_solvable(self) -> bool:
        """Can all that is asked for be served? This takes as long as it must."""
        return self._modes.is_possible(self._surpluses)

    def take_for(self, request: int, count: int, wish: Sequence[int]) -> list[int]:
        """The first ``count`` places of ``wish`` that can be taken so that all else can still be served.

        What was refused once is refused to the end: devices and ports only become fewer.
        """
        places: list[int] = []
        refused: set[tuple[int, OpenPorts | None, bool]] = set()
        for place in wish:
            if len(places) == count:
                return places
            if place not in self._taken and self._take(place, self._group_of[request], refused):
                places.append(place)
        if len(places) < count:
            raise RuntimeError(f"request {request} can be served, but nothing is left in {wish}")
        return places

    def _find_ports(self, *, isolate: bool) -> tuple[dict[Key, _Port], list[OpenPorts]]:
        """The ports that cannot give all their devices at once, and those of them to choose for.

        A port whose PF does for nobody but requests that its VFs do for is never needed whole.
        """
        subsets, ports = self._subsets, {}
        alike: dict[tuple[int, ...], OpenPorts] = {}
        for key, (pf, vfs) in self._useful_by_port().items():
            if isolate or (pf and len(vfs) == 1):
                supply = subsets.supply(functools.reduce(operator.or_, vfs, pf))
                ports[key] = _Port(supply, supply, one=True)
            elif pf and vfs:
                shape = pf, *sorted(vfs)
                if shape not in alike:
                    alike[shape] = OpenPorts.of(subsets, pf, vfs)
                either = alike[shape]
                if either.split_loss:
                    either.add()
                    ports[key] = _Port(either.best, subsets.supply(pf), open=either)
                else:
                    ports[key] = _Port(either.best, either.best)
        return ports, [either for either in alike.values() if either.count]

    def _useful_by_port(self) -> dict[Key, tuple[int, list[int]]]:
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

    def _take(self, place: int, group: int, refused: set[tuple[int, OpenPorts | None, bool]]) -> bool:
        """Take a device for a request of the group, unless something could then not be served."""
        device = self._devices[place]
        whole = device.kind.dev_type is DeviceType.PF
        port = None if device.port is None else self._ports.get(device.port)
        if port and (port.closed or (whole and port.split)):
            return False
        loss = port.whole_loss if port and (whole or port.one) else self._subsets.supply(self._masks[place])
        either = port.open if port and not port.split else None
        alike = loss, either, whole and either is not None
        if alike in refused:
            return False
        left = self._surpluses - loss + self._subsets.supply(1 << group)
        if not self._modes.narrow(left, either, whole=whole):
            refused.add(alike)
            return False
        self._surpluses = left
        self._taken.add(place)
        if port:
            port.split = True
            port.closed = whole or port.one
        return True
