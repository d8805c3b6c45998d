"""Why a claim would be served or refused: what each filter leaves, and which devices come closest."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from cachetools import TTLCache

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.filters import FILTERS
from portclaim.common.pci.network_settings import TAG
from portclaim.common.pci.placement_names import RESOURCE_CLASS
from portclaim.common.rpc.claim_messages import Explanation, FilterResult, Miss
from portclaim.services.scheduler.fleet import Pools, Requirements

# What each filter leaves, from the sums of the hosts (common/db/sql/room.sql).
_COUNTS = PreparedStatement(
    "explain_counts",
    """
    WITH uncounted AS MATERIALIZED (
        SELECT uncounted_hosts(:with_ids::integer[]) AS ids
    ), room AS (
        SELECT compute_node_id, pool_id, devices, free FROM host_pools
         WHERE pool_id = ANY(:with_ids)
           AND (compute_node_id IN (SELECT unnest(ids) FROM uncounted)) IS NOT TRUE
         UNION ALL
        SELECT fresh.compute_node_id, fresh.pool_id, fresh.devices, fresh.free
          FROM uncounted CROSS JOIN LATERAL room_of_hosts(uncounted.ids, false) fresh
         WHERE fresh.pool_id = ANY(:with_ids)
    ), host AS (
        SELECT compute_node_id, sum(devices)::integer AS with_ids,
               (sum(devices) FILTER (WHERE pool_id = ANY(:with_tags::integer[])))::integer AS with_tags,
               (sum(devices) FILTER (WHERE pool_id = ANY(:of_type::integer[])))::integer AS of_type,
               (sum(devices) FILTER (WHERE pool_id = ANY(:pool_ids::integer[])))::integer AS suitable,
               (sum(free) FILTER (WHERE pool_id = ANY(:pool_ids)))::integer AS free
          FROM room GROUP BY compute_node_id
    ), closed AS (
        SELECT compute_node_id,
               (count(*) FILTER (WHERE drained_reason IS NOT NULL))::integer AS drained,
               (count(*) FILTER (WHERE drained_reason IS NULL))::integer AS reserved,
               min(drained_reason) AS drained_reason,
               min(reserved_for::text) FILTER (WHERE drained_reason IS NULL) AS reserved_for
          FROM pci_devices
         WHERE (drained_reason IS NOT NULL OR reserved_for IS NOT NULL)
           AND status <> 'removed' AND pool_id = ANY(:pool_ids)
         GROUP BY compute_node_id
    ), fact AS MATERIALIZED (
        SELECT n.id, n.host, host.with_ids, host.with_tags, host.of_type, host.suitable, host.free,
               CASE WHEN is_named THEN suitable END AS named,
               CASE WHEN is_named AND NOT is_avoided THEN suitable END AS unavoided,
               CASE WHEN is_named AND NOT is_avoided THEN enabled END AS up,
               CASE WHEN is_named AND NOT is_avoided
                     AND n.last_seen >= now() - make_interval(secs => :agent_down_after::double precision)
                    THEN enabled END AS alive,
               coalesce(closed.reserved, 0) AS reserved, closed.reserved_for,
               coalesce(n.disabled_reason, closed.drained_reason) AS drained_reason
          FROM host
          JOIN compute_nodes n ON n.id = host.compute_node_id
          LEFT JOIN closed ON closed.compute_node_id = host.compute_node_id
         CROSS JOIN LATERAL ( -- OFFSET 0: once per host
               SELECT :hosts::text[] IS NULL OR (n.host IN (SELECT unnest(:hosts))) IS TRUE AS is_named,
                      (n.host IN (SELECT unnest(:avoid_hosts::text[]))) IS TRUE AS is_avoided,
                      CASE WHEN n.disabled_reason IS NULL
                           THEN host.suitable - coalesce(closed.drained, 0) ELSE 0 END AS enabled
               OFFSET 0) is_
    ), closest AS MATERIALIZED (
        SELECT id, host, free FROM fact WHERE alive > 0 ORDER BY free DESC, host LIMIT 8
    )
    SELECT ARRAY[count(*) FILTER (WHERE with_ids > 0), sum(with_ids),
                 count(*) FILTER (WHERE with_tags > 0), sum(with_tags),
                 count(*) FILTER (WHERE of_type > 0), sum(of_type),
                 count(*) FILTER (WHERE suitable > 0), sum(suitable),
                 count(*) FILTER (WHERE named > 0), sum(named),
                 count(*) FILTER (WHERE unavoided > 0), sum(unavoided),
                 count(*) FILTER (WHERE up > 0), sum(up),
                 count(*) FILTER (WHERE alive > 0), sum(alive),
                 count(*) FILTER (WHERE alive > reserved), sum(alive - reserved),
                 count(*) FILTER (WHERE alive > 0 AND free > 0), sum(free) FILTER (WHERE alive > 0)],
           min(host || ': ' || drained_reason) FILTER (WHERE unavoided > 0 AND drained_reason IS NOT NULL),
           min(host || ': reserved for waiting claim ' || reserved_for)
               FILTER (WHERE alive > 0 AND reserved_for IS NOT NULL),
           (SELECT array_agg(id) FROM closest),
           (SELECT host FROM closest LIMIT 1),
           (SELECT max(free) FROM closest)
      FROM fact
    """,
)

# Devices that claims block: those of the hosts that come closest, and the PFs that have the most free VFs.
_MISSES = PreparedStatement(
    "explain_misses",
    """
    WITH vf AS (
        SELECT d.id
          FROM unnest(:node_ids::bigint[]) AS node (id)
         CROSS JOIN LATERAL (
               SELECT id, parent_id, claim_id FROM pci_devices
                WHERE compute_node_id = node.id AND parent_id IS NOT NULL
                  AND pool_id = ANY(:pool_ids::integer[])
                  AND status IN ('claimed', 'allocated', 'unclaimable', 'unavailable')
                ORDER BY id LIMIT 200) d
          JOIN pci_devices pf ON pf.id = d.parent_id
         WHERE d.claim_id IS NOT NULL OR pf.claim_id IS NOT NULL
    ), port AS (
        SELECT id FROM pci_devices
         WHERE compute_node_id = ANY(:node_ids) AND parent_id IS NULL AND pool_id = ANY(:pool_ids)
         UNION
        SELECT pf.id
          FROM pools p
         CROSS JOIN LATERAL (
               SELECT port_id FROM port_pools
                WHERE pool_id = p.id AND NOT whole AND free > 0 ORDER BY free DESC LIMIT 20) pp
          JOIN pci_devices pf ON pf.id = pp.port_id
         WHERE p.dev_type = 'type-VF' AND :has_pfs::boolean AND pf.pool_id = ANY(:pool_ids)
    )
    SELECT n.host, d.address, d.dev_type, d.status, holders.instances::text[] AS held_by,
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
     WHERE d.id IN (SELECT id FROM vf UNION ALL SELECT id FROM port)
       AND d.status IN ('claimed', 'allocated', 'unclaimable', 'unavailable')
       AND n.disabled_reason IS NULL AND d.drained_reason IS NULL
       AND n.last_seen >= now() - make_interval(secs => :agent_down_after::double precision)
       AND (:hosts::text[] IS NULL OR n.host = ANY(:hosts))
       AND (:avoid_hosts::text[] IS NULL OR NOT n.host = ANY(:avoid_hosts))
       AND holders.instances IS NOT NULL
     ORDER BY cardinality(holders.instances), n.host, d.id
     LIMIT 20
    """,
)

_RECENT = 1.0  # seconds
_STAGES = (*FILTERS, "hosts", "avoid_hosts", "enabled", "alive", "unreserved", "available")

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
_SETTINGS = "network_settings is the tag of those whose agents set them ([handover] network_settings)"


class _Counts(NamedTuple):
    """The columns of ``explain_counts``. ``closest``: the hosts with the most free devices."""

    stages: list[int | None]
    drained: str | None
    reserved: str | None
    closest: list[int] | None
    closest_host: str | None
    most_free: int | None


class Refusals:
    """Explains refusals. In a full fleet many claims ask for the same in vain: they get the same explanation.

    Threads may share one.
    """

    def __init__(self, engine: sa.Engine, agent_down_after: float) -> None:
        self._engine = engine
        self._agent_down_after = agent_down_after
        self._recent: TTLCache[str, Explanation] = TTLCache(maxsize=256, ttl=_RECENT)
        self._lock = threading.Lock()

    def explain(self, requirements: Requirements, pools: Pools) -> Explanation:
        """Why no host can serve the claim; the explanation may be a second old."""
        asked = repr(requirements)
        with self._lock:
            known = self._recent.get(asked)
        if known is None:
            known = explain(self._engine, requirements, pools, self._agent_down_after, served=False)
            with self._lock:
                self._recent[asked] = known
        return known


def explain(
    engine: sa.Engine,
    requirements: Requirements,
    pools: Pools,
    agent_down_after: float,
    *,
    served: bool,
) -> Explanation:
    """What each filter leaves for the claim.

    ``served``: the caller knows whether the claim can be served now.
    """
    passed = {pool_id: list(requirements.requests) for pool_id in pools}
    pools_left = []
    for does in FILTERS.values():
        passed = {
            pool_id: [request for request in requests if does(request, pools[pool_id])]
            for pool_id, requests in passed.items()
        }
        pools_left.append([pool_id for pool_id, requests in passed.items() if requests])
    facts: dict[str, Any] = {
        **dict(zip(("with_ids", "with_tags", "of_type", "pool_ids"), pools_left, strict=True)),
        "agent_down_after": agent_down_after,
        **requirements.as_facts(),
    }
    [row] = _COUNTS.rows(engine, facts)
    counts = _Counts._make(row)
    numbers = [number or 0 for number in counts.stages]
    filters = [
        FilterResult(filter=name, hosts=hosts, devices=devices)
        for name, hosts, devices in zip(_STAGES, numbers[::2], numbers[1::2], strict=True)
    ]
    together = filters[-1] if served else FilterResult(filter="together", hosts=0, devices=0)
    filters.append(together.model_copy(update={"filter": "together"}))
    if served:
        return Explanation(served=True, filters=filters)
    facts["node_ids"] = counts.closest or []
    facts["has_pfs"] = any(pools[pool_id].dev_type is DeviceType.PF for pool_id in facts["pool_ids"])
    misses = [
        Miss.model_validate(dict(zip(Miss.model_fields, row, strict=True)))
        for row in _MISSES.rows(engine, facts)
    ]
    return Explanation(
        served=False,
        filters=filters,
        reason=next(result.filter for result in filters if result.devices == 0),
        misses=misses,
        nearest_miss=_in_words(requirements, filters, counts, misses),
    )


def _in_words(
    requirements: Requirements, filters: Sequence[FilterResult], counts: _Counts, misses: Sequence[Miss]
) -> str:
    """The filter that left nothing; or else how many devices are free, and who holds the closest others."""
    tags = _SETTINGS if _names(TAG, requirements) else None
    details = {"enabled": counts.drained, "unreserved": counts.reserved, "tags": tags, "hosts": tags}
    for result in filters:
        if result.devices == 0 and result.filter in _EMPTIED:
            why = _EMPTIED[result.filter]
            if result.filter == "ids" and _names(RESOURCE_CLASS, requirements):
                why = "no host has a device of this resource class with these vendor and product ids"
            return f"{why}: {detail}" if (detail := details.get(result.filter)) else why
    needed = requirements.device_count
    if counts.most_free:
        why = (
            f"no host has enough free devices for this request "
            f"({needed} needed, {counts.closest_host} has {counts.most_free})"
        )
    else:
        why = f"no host has a free device for this request ({needed} needed)"
    return f"{why}. Closest: {_closest(misses)}" if misses else why


def _names(key: str, requirements: Requirements) -> bool:
    return any(key in alternative for request in requirements.requests for alternative in request.spec)


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
