"""What the fleet has free for a request, and which of it a claim would take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from common.pci.device import DeviceType
from common.pci.matching import Kind, satisfies
from common.pci.request import PciRequest
from services.scheduler import statements
from services.scheduler.packing import Packing, Room


@dataclass(frozen=True, slots=True)
class Wanted:
    """A claim's PCI requests, and the hosts it may go to (None: all of them)."""

    requests: tuple[PciRequest, ...]
    hosts: tuple[str, ...] | None = None
    avoid_hosts: tuple[str, ...] = ()

    @property
    def device_count(self) -> int:
        return sum(request.count for request in self.requests)


class Free(NamedTuple):
    """A device that could be taken, and how its port is used."""

    compute_node_id: int
    id: int
    port_id: int
    pool_id: int
    dev_type: str
    numa_node: int | None
    address: str
    port_held: int
    port_free: int


class Placement(NamedTuple):
    """The devices that a claim takes: ``device_ids[i]`` serves the request ``request_indexes[i]``."""

    compute_node_id: int
    device_ids: list[int]
    request_indexes: list[int]
    port_ids: list[int]


def suitable_pools(connection: sa.Connection, wanted: Wanted) -> dict[int, Kind]:
    """The pools of which some request could take a device. A fleet has few pools."""
    pools = {
        row.id: Kind(DeviceType(row.dev_type), row.vendor_id, row.product_id, row.tags)
        for row in connection.execute(statements.POOLS)
    }
    return {
        pool_id: kind
        for pool_id, kind in pools.items()
        if any(satisfies(request, kind) for request in wanted.requests)
    }


def free_devices(connection: sa.Connection, wanted: Wanted, pool_ids: Collection[int]) -> list[Free]:
    """All devices that could be taken now, as they were at one moment."""
    rows = connection.execute(
        statements.FREE_DEVICES,
        {
            "pool_ids": list(pool_ids),
            "hosts": None if wanted.hosts is None else list(wanted.hosts),
            "avoid_hosts": list(wanted.avoid_hosts),
            "device_count": wanted.device_count,
        },
    )
    return [Free(*row) for row in rows]


def choose(
    wanted: Wanted,
    pools: Mapping[int, Kind],
    free: Sequence[Free],
    packing: Packing,
    busy: Collection[int],
) -> Placement | None:
    """The placement that the packing policy likes best, on no port in ``busy``; None if there is none."""
    ordered = sorted(
        (device for device in free if device.port_id not in busy),
        key=lambda device: (packing(Room(device.dev_type, device.port_held, device.port_free)), device.id),
    )
    by_host: dict[int, list[Free]] = {}
    for device in ordered:
        by_host.setdefault(device.compute_node_id, []).append(device)
    for node_id, devices in by_host.items():
        chosen: dict[int, int] = {}
        for index, request in enumerate(wanted.requests):
            fits = [d.id for d in devices if d.id not in chosen and satisfies(request, pools[d.pool_id])]
            if len(fits) < request.count:
                break
            chosen |= dict.fromkeys(fits[: request.count], index)
        else:
            ports = sorted({device.port_id for device in devices if device.id in chosen})
            return Placement(node_id, list(chosen), list(chosen.values()), ports)
    return None
