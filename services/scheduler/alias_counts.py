"""How many devices of the fleet each alias gets, and how many it would get but for their type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from portclaim.common.pci.alias import Alias, Aliases
from portclaim.common.pci.alias_check import but_for_type
from portclaim.common.pci.filters import Kind, satisfies
from portclaim.common.pci.request import PciRequest
from portclaim.common.rpc import alias_messages
from portclaim.common.rpc.alias_messages import AliasSummary
from portclaim.services.scheduler import fleet

# From the sums of the hosts (common/db/sql/room.sql). They also count PFs that no entry of device_spec takes:
# these are known only because their VFs are taken.
_COUNTS = sa.text("""
    WITH uncounted AS MATERIALIZED (
        SELECT uncounted_hosts(ARRAY(SELECT id FROM pools)) AS ids
    ), room AS (
        SELECT compute_node_id, pool_id, devices, free FROM host_pools
         WHERE (compute_node_id IN (SELECT unnest(ids) FROM uncounted)) IS NOT TRUE
         UNION ALL
        SELECT fresh.compute_node_id, fresh.pool_id, fresh.devices, fresh.free
          FROM uncounted CROSS JOIN LATERAL room_of_hosts(uncounted.ids, false) fresh
    ), of_pool AS (
        SELECT room.pool_id, sum(room.devices)::integer AS devices,
               (sum(room.free) FILTER (
                   WHERE n.disabled_reason IS NULL
                     AND n.last_seen >= now() - make_interval(secs => :agent_down_after)))::integer AS free
          FROM room JOIN compute_nodes n ON n.id = room.compute_node_id
         GROUP BY room.pool_id
    ), not_offered AS (
        SELECT pool_id, count(*) AS devices FROM pci_devices
         WHERE parent_id IS NULL AND NOT offered AND status <> 'removed'
         GROUP BY pool_id
    )
    SELECT pool_id, of_pool.devices - coalesce(not_offered.devices, 0), coalesce(of_pool.free, 0)
      FROM of_pool LEFT JOIN not_offered USING (pool_id)
""")


class _Count(NamedTuple):
    """The devices of a pool on all hosts."""

    kind: Kind
    devices: int
    available: int


def summaries(connection: sa.Connection, aliases: Aliases, agent_down_after: float) -> alias_messages.Aliases:
    """Each alias with its devices."""
    pools = fleet.read_pools(connection)
    rows = connection.execute(_COUNTS, {"agent_down_after": agent_down_after})
    counts = [_Count(pools[pool_id], devices, free) for pool_id, devices, free in rows if pool_id in pools]
    return alias_messages.Aliases(
        aliases=[_summary(aliases, alias, counts) for _, alias in sorted(aliases.by_name.items())]
    )


def _summary(aliases: Aliases, alias: Alias, counts: Sequence[_Count]) -> AliasSummary:
    spec = aliases.spec_of(alias)
    request = PciRequest(1, spec)
    matching = [count for count in counts if satisfies(request, count.kind)]
    of_other_types: Counter[str] = Counter()
    for count in counts:
        if count.devices and but_for_type(spec, count.kind):
            of_other_types[count.kind.dev_type.value] += count.devices
    return AliasSummary(
        name=alias.name,
        numa_policy=alias.numa_policy.value,
        spec=[dict(alternative) for alternative in spec],
        devices=sum(count.devices for count in matching),
        available=sum(count.available for count in matching),
        of_other_types=dict(sorted(of_other_types.items())),
    )
