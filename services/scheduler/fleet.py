"""What the fleet has free for a claim, and which of these devices the claim would take."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.filters import Affinity, Kind, satisfies
from portclaim.common.pci.matching import FreeDevice, assign
from portclaim.common.pci.request import GroupPolicy, PciRequest
from portclaim.services.scheduler import statements

Pools = Mapping[int, Kind]


@dataclass(frozen=True, slots=True)
class Requirements:
    """A claim's PCI requests, and the hosts that may serve it (None: any host).

    ``near`` and ``apart_from`` are ids of claims. :mod:`~portclaim.services.scheduler.neighbours` turns them
    into hosts.
    """

    requests: tuple[PciRequest, ...]
    group_policy: GroupPolicy = GroupPolicy.NONE
    hosts: tuple[str, ...] | None = None
    avoid_hosts: tuple[str, ...] = ()
    numa_cells: frozenset[int] = frozenset()
    near: tuple[UUID, ...] = ()
    apart_from: tuple[UUID, ...] = ()

    @property
    def device_count(self) -> int:
        return sum(request.count for request in self.requests)

    @property
    def is_particular(self) -> bool:
        """Do the requests say more than which kind of devices, on one host?"""
        isolated = self.group_policy is GroupPolicy.ISOLATE and self.device_count > 1
        return isolated or bool(self.numa_cells)

    @property
    def limits_hosts(self) -> bool:
        """May only some hosts serve the claim?"""
        return self.hosts is not None or bool(self.avoid_hosts or self.near or self.apart_from)

    def suitable(self, pools: Pools) -> dict[int, Kind]:
        """The pools from which some request could take a device. A fleet has few pools."""
        return {
            pool_id: kind
            for pool_id, kind in pools.items()
            if any(satisfies(request, kind) for request in self.requests)
        }

    def from_one_port(self, suitable: Mapping[int, Kind]) -> Literal["vfs", "whole"] | None:
        """What one port can give to serve all: VFs, or one whole device. None: match exactly.

        ``suitable``: see :meth:`suitable`. A port that can serve all of it comes before several ports.
        """
        if not suitable or len(self.requests) > 1 or self.is_particular:
            return None
        vfs = {kind.dev_type is DeviceType.VF for kind in suitable.values()}
        if vfs == {True}:
            return "vfs"
        return "whole" if vfs == {False} and self.device_count == 1 else None

    def as_facts(self) -> dict[str, Any]:
        """The limits on hosts, as parameters of the statements."""
        return {
            "hosts": None if self.hosts is None else list(self.hosts),
            "avoid_hosts": list(self.avoid_hosts) or None,
        }


class Free(NamedTuple):
    """A free device."""

    compute_node_id: int
    id: int
    port_id: int
    pool_id: int
    dev_type: str
    numa_node: int | None
    numa_cells: list[dict[str, Any]]


class Placement(NamedTuple):
    """The devices that a claim takes: ``device_ids[i]`` serves the request ``request_indexes[i]``.

    Each was in the pool ``pool_ids[i]`` and on the port ``port_ids[i]`` when it was chosen.
    """

    compute_node_id: int
    device_ids: list[int]
    request_indexes: list[int]
    pool_ids: list[int]
    port_ids: list[int]


def read_pools(connection: sa.Connection) -> Pools:
    """All pools of the fleet."""
    return as_pools(tuple(row) for row in connection.execute(statements.POOLS))


def as_pools(rows: Iterable[tuple[Any, ...]]) -> Pools:
    """The pools that rows of the table ``pools`` describe."""
    return {
        pool_id: Kind(DeviceType(dev_type), vendor_id, product_id, tags)
        for pool_id, dev_type, vendor_id, product_id, tags in rows
    }


def choose(
    requirements: Requirements, pools: Pools, free: Sequence[Free], busy: Collection[int]
) -> Placement | None:
    """The first placement in the order of ``free`` that takes nothing of a port in ``busy``; None: there is
    none.
    """
    by_host: dict[int, list[Free]] = {}
    for device in free:
        if device.port_id not in busy:
            by_host.setdefault(device.compute_node_id, []).append(device)
    for devices in by_host.values():
        affinity = Affinity(requirements.numa_cells, _sockets(devices[0].numa_cells))
        candidates = [
            FreeDevice(
                key=device.id,
                kind=pools[device.pool_id],
                port=None if device.dev_type == DeviceType.PCI else device.port_id,
                numa_node=device.numa_node,
            )
            for device in devices
        ]
        assigned = assign(requirements.requests, candidates, affinity, requirements.group_policy)
        if assigned is not None:
            by_id = {device.id: device for device in devices}
            chosen = [(by_id[each.key], index) for index, served in enumerate(assigned) for each in served]
            return Placement(
                compute_node_id=devices[0].compute_node_id,
                device_ids=[device.id for device, _ in chosen],
                request_indexes=[index for _, index in chosen],
                pool_ids=[device.pool_id for device, _ in chosen],
                port_ids=[device.port_id for device, _ in chosen],
            )
    return None


def _sockets(numa_cells: Sequence[Mapping[str, Any]]) -> dict[int, int | None]:
    """The socket of each of a host's NUMA nodes."""
    return {cell["id"]: cell["socket"] for cell in numa_cells}
