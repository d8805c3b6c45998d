"""Why a claim would be served or refused: what each filter leaves, and which devices come closest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.pci.filters import FILTERS
from portclaim.common.rpc.claim_messages import Explanation, FilterResult, Miss
from portclaim.services.scheduler.fleet import Pools, Requirements

_COUNTS = sa.text("""
    SELECT n.host, coalesce(n.disabled_reason, d.drained_reason) AS drained_reason,
           n.last_seen < now() - make_interval(secs => :agent_down_after) AS is_silent, d.reserved_for,
           d.pool_id, d.numa_node, d.status, count(*) AS devices
      FROM pci_devices d
      JOIN compute_nodes n ON n.id = d.compute_node_id
     WHERE d.status <> 'removed'
     GROUP BY n.id, d.drained_reason, d.reserved_for, d.pool_id, d.numa_node, d.status
""")

_MISSES = sa.text("""
    SELECT n.host, d.address, d.dev_type, d.status, holders.instances AS held_by,
           (SELECT count(*) FROM pci_devices vf WHERE vf.parent_id = d.id AND NOT vf.unheld) AS vfs_held
      FROM pci_devices d
      JOIN compute_nodes n ON n.id = d.compute_node_id
     CROSS JOIN LATERAL (
           SELECT array_agg(DISTINCT c.instance_id) AS instances
             FROM (SELECT d.claim_id
                   UNION ALL SELECT pf.claim_id FROM pci_devices pf WHERE pf.id = d.parent_id
                   UNION ALL SELECT vf.claim_id FROM pci_devices vf WHERE vf.parent_id = d.id) tree
             JOIN claims c ON c.id = tree.claim_id
           ) holders
     WHERE d.pool_id = ANY(:pool_ids) AND n.host = ANY(:hosts)
       AND d.status IN ('claimed', 'allocated', 'unclaimable', 'unavailable')
       AND holders.instances IS NOT NULL
     ORDER BY cardinality(holders.instances), n.host, d.id
     LIMIT 20
""")

_EMPTIED = {
    "ids": "no host has a device with these vendor and product ids",
    "tags": "no host has such a device with these tags",
    "type": "no host has such a device of the requested type",
    "remote_managed": "no host has such a device with the requested remote_managed",
    "hosts": "none of the requested hosts has such a device",
    "avoid_hosts": "every host with such a device is excluded by avoid_hosts or apart_from",
    "enabled": "every host or port with such a device is drained",
    "alive": "the agent of every host with such a device is silent",
    "unreserved": "every port with such a device is reserved for a waiting claim",
}


class _Count(NamedTuple):
    """The number of devices of one pool on one NUMA node of one host in one status."""

    host: str
    drained_reason: str | None
    is_silent: bool
    reserved_for: UUID | None
    pool_id: int
    numa_node: int | None
    status: str
    devices: int


def explain(
    connection: sa.Connection,
    requirements: Requirements,
    pools: Pools,
    agent_down_after: float,
    *,
    served: bool,
) -> Explanation:
    """What each filter leaves for the claim.

    ``served``: the caller knows whether the claim can be served now.
    """
    facts: dict[str, Any] = {"agent_down_after": agent_down_after}
    counts = [_Count._make(row) for row in connection.execute(_COUNTS, facts)]
    filters: list[FilterResult] = []

    def leave(name: str, keep: Callable[[_Count], bool]) -> list[_Count]:
        counts[:] = [count for count in counts if keep(count)]
        hosts = {count.host for count in counts}
        devices = sum(count.devices for count in counts)
        filters.append(FilterResult(filter=name, hosts=len(hosts), devices=devices))
        return list(counts)

    passed = {pool_id: list(requirements.requests) for pool_id in pools}
    for name, does in FILTERS.items():
        passed = {
            pool_id: [request for request in requests if does(request, pools[pool_id])]
            for pool_id, requests in passed.items()
        }
        wanted_pools = {pool_id for pool_id, requests in passed.items() if requests}
        leave(name, partial(_is_of, wanted_pools))
    leave("hosts", lambda c: requirements.hosts is None or c.host in requirements.hosts)
    leave("avoid_hosts", lambda c: c.host not in requirements.avoid_hosts)
    drained = [f"{c.host}: {c.drained_reason}" for c in counts if c.drained_reason is not None]
    leave("enabled", lambda c: c.drained_reason is None)
    reachable = leave("alive", lambda c: not c.is_silent)
    reserved = [
        f"{c.host}: reserved for waiting claim {c.reserved_for}" for c in counts if c.reserved_for is not None
    ]
    leave("unreserved", lambda c: c.reserved_for is None)
    leave("available", lambda c: c.status == "available")
    leave("together", lambda _: served)
    if served:
        return Explanation(served=True, filters=filters)
    misses = _misses(connection, requirements, pools, reachable)
    return Explanation(
        served=False,
        filters=filters,
        misses=misses,
        nearest_miss=_in_words(
            requirements, filters, reachable, misses, {"enabled": drained, "unreserved": reserved}
        ),
    )


def _is_of(pool_ids: Set[int], count: _Count) -> bool:
    return count.pool_id in pool_ids


def _misses(
    connection: sa.Connection, requirements: Requirements, pools: Pools, reachable: Sequence[_Count]
) -> list[Miss]:
    facts = {
        "pool_ids": list(requirements.suitable(pools)),
        "hosts": sorted({count.host for count in reachable}),
    }
    return [Miss.model_validate(dict(row)) for row in connection.execute(_MISSES, facts).mappings()]


def _in_words(
    requirements: Requirements,
    filters: Sequence[FilterResult],
    reachable: Sequence[_Count],
    misses: Sequence[Miss],
    details: Mapping[str, Sequence[str]],
) -> str:
    """The filter that left nothing; or else how many devices are free, and who holds the closest others."""
    for result in filters:
        if result.devices == 0 and result.filter in _EMPTIED:
            why = _EMPTIED[result.filter]
            return f"{why}: {min(details[result.filter])}" if result.filter in details else why
    free: Counter[str] = Counter()
    for count in reachable:
        free[count.host] += count.devices if count.status == "available" else 0
    host, most = free.most_common(1)[0]
    needed = requirements.device_count
    if most:
        why = f"no host has enough free devices for this request ({needed} needed, {host} has {most})"
    else:
        why = f"no host has a free device for this request ({needed} needed)"
    return f"{why}. Closest: {_closest(misses)}" if misses else why


def _closest(misses: Sequence[Miss]) -> str:
    """The devices that the fewest instances block, as one phrase about all hosts that have such devices."""
    first = misses[0]
    alike = [miss for miss in misses if _obstacle(miss) == _obstacle(first)]
    others = len({miss.host for miss in alike}) - 1
    where = f"host {first.host}" + (
        f" (and on {others} more host{'s' if others > 1 else ''})" if others else ""
    )
    instances = list(dict.fromkeys(str(instance) for miss in alike for instance in miss.held_by))
    by = f"instance {instances[0]}" + (f" and {len(instances) - 1} more" if len(instances) > 1 else "")
    return f"a {first.dev_type.removeprefix('type-')} on {where} {_obstacle(first)} by {by}"


def _obstacle(miss: Miss) -> str:
    match miss.status:
        case "claimed" | "allocated":
            return "is held"
        case _ if miss.vfs_held:
            held = f"{miss.vfs_held} of its VFs are held" if miss.vfs_held > 1 else "one of its VFs is held"
            return f"is blocked because {held}"
        case _:
            return "is blocked because its PF is held"
