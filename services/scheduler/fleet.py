"""What the fleet has free for a request, and which of it a claim would take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from common.pci.device import DeviceType
from common.pci.matching import Kind, satisfies
from common.pci.request import GroupPolicy, PciRequest
from services.scheduler import statements

Pools = Mapping[int, Kind]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A claim's PCI requests, and the hosts it may go to (None: all of them)."""

    requests: tuple[PciRequest, ...]
    group_policy: GroupPolicy = GroupPolicy.NONE
    hosts: tuple[str, ...] | None = None
    avoid_hosts: tuple[str, ...] = ()

    @property
    def device_count(self) -> int:
        return sum(request.count for request in self.requests)

    @property
    def is_particular(self) -> bool:
        """More is asked for than that devices are of some kind and on one host."""
        return self.group_policy is not GroupPolicy.NONE and self.device_count > 1

    def suitable(self, pools: Pools) -> dict[int, Kind]:
        """The pools of which some request could take a device. A fleet has few pools."""
        return {
            pool_id: kind
            for pool_id, kind in pools.items()
            if any(satisfies(request, kind) for request in self.requests)
        }

    def as_facts(self) -> dict[str, Any]:
        """The hosts, as the statements take them."""
        return {
            "hosts": None if self.hosts is None else list(self.hosts),
            "avoid_hosts": list(self.avoid_hosts) or None,
        }


class Free(NamedTuple):
    """A device that could be taken."""

    compute_node_id: int
    id: int
    port_id: int
    pool_id: int
    dev_type: str
    numa_node: int | None
    address: str


class Placement(NamedTuple):
    """The devices that a claim takes: ``device_ids[i]`` serves the request ``request_indexes[i]``."""

    device_ids: list[int]
    request_indexes: list[int]
    port_ids: list[int]


def read_pools(connection: sa.Connection) -> Pools:
    """All pools of the fleet."""
    return {
        row.id: Kind(DeviceType(row.dev_type), row.vendor_id, row.product_id, row.tags)
        for row in connection.execute(statements.POOLS)
    }


def choose(wanted: Wanted, pools: Pools, free: Sequence[Free], busy: Collection[int]) -> Placement | None:
    """The first placement in the order of ``free``, on no port in ``busy``; None if there is none."""
    by_host: dict[int, list[Free]] = {}
    for device in free:
        if device.port_id not in busy:
            by_host.setdefault(device.compute_node_id, []).append(device)
    for devices in by_host.values():
        chosen: dict[int, int] = {}
        for index, request in enumerate(wanted.requests):
            fits = [d.id for d in devices if d.id not in chosen and satisfies(request, pools[d.pool_id])]
            if len(fits) < request.count:
                break
            chosen |= dict.fromkeys(fits[: request.count], index)
        else:
            ports = sorted({device.port_id for device in devices if device.id in chosen})
            return Placement(list(chosen), list(chosen.values()), ports)
    return None
