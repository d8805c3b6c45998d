"""Why a claim is served or not, as data first: what every filter leaves over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from common.rpc.messages import Explanation, FilterResult
from services.scheduler import fleet
from services.scheduler.fleet import Wanted
from services.scheduler.packing import Packing

_COUNTS = sa.text("""
    SELECT n.host, n.disabled_reason, d.status, count(*) AS devices
      FROM pci_devices d
      JOIN compute_nodes n ON n.id = d.compute_node_id
     WHERE d.pool_id = ANY(:pool_ids) AND d.status <> 'removed'
     GROUP BY n.host, n.disabled_reason, d.status
     ORDER BY n.host, d.status
""")


class _Count(NamedTuple):
    host: str
    disabled_reason: str | None
    status: str
    devices: int


def explain(connection: sa.Connection, wanted: Wanted, packing: Packing) -> Explanation:
    """What would become of the claim now. Reserves and locks nothing."""
    pools = fleet.suitable_pools(connection, wanted)
    free = fleet.free_devices(connection, wanted, pools)
    placement = fleet.choose(wanted, pools, free, packing, ())
    counts = [_Count(*row) for row in connection.execute(_COUNTS, {"pool_ids": list(pools)})]

    filters: list[FilterResult] = []

    def leave(name: str, keep: Callable[[_Count], bool]) -> None:
        counts[:] = [count for count in counts if keep(count)]
        filters.append(_result(name, counts))

    leave("alias", lambda _: True)
    leave(
        "hosts",
        lambda c: (wanted.hosts is None or c.host in wanted.hosts) and c.host not in wanted.avoid_hosts,
    )
    leave("enabled", lambda c: c.disabled_reason is None)
    reachable = list(counts)
    leave("available", lambda c: c.status == "available")
    leave("together", lambda _: placement is not None)
    served = placement is not None
    return Explanation(
        served=served,
        filters=filters,
        nearest_miss=None if served else _nearest_miss(wanted, filters, reachable),
    )


def _result(name: str, counts: Sequence[_Count]) -> FilterResult:
    hosts = {count.host for count in counts}
    return FilterResult(filter=name, hosts=len(hosts), devices=sum(count.devices for count in counts))


def _nearest_miss(wanted: Wanted, filters: Sequence[FilterResult], reachable: Sequence[_Count]) -> str:
    """The first filter that left nothing, in words; or, past all filters, the host that comes nearest."""
    left = {result.filter: result.devices for result in filters}
    if left["alias"] == 0:
        return "no host has such a device"
    if left["hosts"] == 0:
        return "none of the hosts that it may go to has such a device"
    if left["enabled"] == 0:
        return "every host that has such a device is disabled"
    by_host: dict[str, dict[str, int]] = {}
    for count in reachable:
        by_host.setdefault(count.host, {})[count.status] = count.devices
    host, statuses = max(by_host.items(), key=lambda item: item[1].get("available", 0))
    standing = ", ".join(f"{number} {status}" for status, number in statuses.items())
    return f"{wanted.device_count} wanted; of such devices {host} comes nearest with {standing}"
