"""Why a claim is served or not, as data first: what every filter leaves over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from common.rpc.messages import Explanation, FilterResult
from services.scheduler.fleet import Pools, Wanted

_COUNTS = sa.text("""
    SELECT n.host, n.disabled_reason,
           n.last_seen < now() - make_interval(secs => :agent_down_after) AS is_silent,
           d.status, count(*) AS devices
      FROM pci_devices d
      JOIN compute_nodes n ON n.id = d.compute_node_id
     WHERE d.pool_id = ANY(:pool_ids) AND d.status <> 'removed'
     GROUP BY n.id, d.status
     ORDER BY n.host, d.status
""")


class _Count(NamedTuple):
    host: str
    disabled_reason: str | None
    is_silent: bool
    status: str
    devices: int


def explain(
    connection: sa.Connection, wanted: Wanted, pools: Pools, agent_down_after: float, *, served: bool
) -> Explanation:
    """What every filter leaves over for the claim, which can be served now or not."""
    facts = {"pool_ids": list(wanted.suitable(pools)), "agent_down_after": agent_down_after}
    counts = [_Count(*row) for row in connection.execute(_COUNTS, facts)]
    filters: list[FilterResult] = []

    def leave(name: str, keep: Callable[[_Count], bool]) -> list[_Count]:
        counts[:] = [count for count in counts if keep(count)]
        filters.append(_result(name, counts))
        return list(counts)

    leave("alias", lambda _: True)
    leave("hosts", lambda c: wanted.hosts is None or c.host in wanted.hosts)
    leave("avoid_hosts", lambda c: c.host not in wanted.avoid_hosts)
    leave("enabled", lambda c: c.disabled_reason is None)
    reachable = leave("alive", lambda c: not c.is_silent)
    leave("available", lambda c: c.status == "available")
    leave("together", lambda _: served)
    miss = None if served else _nearest_miss(wanted, filters, reachable)
    return Explanation(served=served, filters=filters, nearest_miss=miss)


def _result(name: str, counts: Sequence[_Count]) -> FilterResult:
    hosts = {count.host for count in counts}
    return FilterResult(filter=name, hosts=len(hosts), devices=sum(count.devices for count in counts))


_EMPTIED = {
    "alias": "no host has such a device",
    "hosts": "none of the hosts that it may go to has such a device",
    "avoid_hosts": "all hosts that have such a device are to be avoided",
    "enabled": "every host that has such a device is disabled",
    "alive": "the agent of every host that has such a device is silent",
}


def _nearest_miss(wanted: Wanted, filters: Sequence[FilterResult], reachable: Sequence[_Count]) -> str:
    """The filter that left nothing, in words; or, past all of these, the host that comes nearest."""
    for result in filters:
        if result.devices == 0 and result.filter in _EMPTIED:
            return _EMPTIED[result.filter]
    by_host: dict[str, dict[str, int]] = {}
    for count in reachable:
        by_host.setdefault(count.host, {})[count.status] = count.devices
    host, statuses = max(by_host.items(), key=lambda item: item[1].get("available", 0))
    standing = ", ".join(f"{number} {status}" for status, number in statuses.items())
    return f"{wanted.device_count} wanted; of such devices {host} comes nearest with {standing}"
