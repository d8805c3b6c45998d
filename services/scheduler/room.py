"""Which hosts can serve a claim that is matched exactly, and what such a claim would take.

The database knows how many devices each host has free (common/db/sql/room.sql). That leaves few hosts, or
none. Of hosts that have the same free, one is matched.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.metrics.catalogue import CLAIM_PHASES
from portclaim.common.pci.filters import satisfies
from portclaim.common.pci.request import GroupPolicy, NumaPolicy
from portclaim.services.scheduler import fleet
from portclaim.services.scheduler.fleet import Free, Placement, Pools, Requirements
from portclaim.services.scheduler.free_statements import free_on_close_hosts, free_on_hosts, near_hosts
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.statements import FEW, WHERE, where_to_look

_MAY_BE_SERVED = PreparedStatement("may_be_served", "SELECT may_be_served(:needs::jsonb)")

_KINDS = 32  # of hosts, that one statement reads
_NEAR_ONLY = frozenset({NumaPolicy.REQUIRED, NumaPolicy.LEGACY})


class Room:
    """Finds devices for claims that are matched exactly. It locks nothing. Threads may share one.

    ``agent_down_after``: seconds of an agent's silence after which its host takes no claims.
    """

    def __init__(self, engine: sa.Engine, packing: Packing, agent_down_after: float) -> None:
        self._engine = engine
        self._agent_down_after = agent_down_after
        self._most_first = not packing.keeps_ports_whole
        self._near_hosts = {where: near_hosts(packing, where) for where in WHERE}
        self._on_hosts = free_on_hosts(packing, "on hosts")
        self._on_named_hosts = free_on_hosts(packing, "on named hosts")
        self._on_close_hosts = free_on_close_hosts(packing)

    @CLAIM_PHASES.timed("choose")
    def may_serve(self, requirements: Requirements, pools: Pools) -> bool:
        """A quick look at the counters. False: there was a moment at which no host could serve the claim."""
        may: bool = _MAY_BE_SERVED.value(self._engine, self.facts(requirements, pools))
        return may

    @CLAIM_PHASES.timed("choose")
    def choose_near(
        self, requirements: Requirements, pools: Pools, busy_ports: Collection[int]
    ) -> Placement | None:
        """A placement on the hosts of the devices that the policy prefers, or on the few that are named.

        None does not mean that no host can serve the claim.
        """
        facts = self.facts(requirements, pools)
        hosts = requirements.hosts
        if hosts is None or len(hosts) > FEW:
            near = self._near_hosts[where_to_look(hosts)].rows(self._engine, facts)
            facts["node_ids"] = [node_id for (node_id,) in near]
            rows = self._on_hosts.rows(self._engine, facts)
        else:
            rows = self._on_named_hosts.rows(self._engine, facts)
        return fleet.choose(requirements, pools, [Free._make(row) for row in rows], busy_ports)

    @CLAIM_PHASES.timed("choose")
    def choose(
        self,
        requirements: Requirements,
        pools: Pools,
        busy_hosts: Collection[int] = (),
        statement: PreparedStatement | None = None,
        **facts: Any,
    ) -> Placement | None:
        """A placement on any host but ``busy_hosts``.

        None: there was a moment at which none of these hosts could serve the claim. ``statement`` with its
        ``facts``: another one that reads what is free on close hosts.
        """
        facts |= self.facts(requirements, pools) | {
            "busy": list(busy_hosts),
            "most_first": self._most_first,
            "limit": _KINDS,
            "after": "",
        }
        statement = statement or self._on_close_hosts
        rows = statement.rows(self._engine, facts)
        placement, after = _match(requirements, pools, rows)
        if placement is not None or after is None:
            return placement
        # There are more kinds of hosts. All of them are read as of one moment.
        return next(
            (
                placement
                for rows in statement.pages(self._engine, facts, _next_page)
                if (placement := _match(requirements, pools, rows)[0]) is not None
            ),
            None,
        )

    def facts(self, requirements: Requirements, pools: Pools) -> dict[str, Any]:
        """What the statements need to know of the claim."""
        suitable = requirements.suitable(pools)
        return {
            "pool_ids": list(suitable),
            "count": requirements.device_count,
            "few": FEW,
            "by_numa": bool(requirements.numa_cells),
            "needs": json.dumps(_needs(requirements, suitable)),
            "agent_down_after": self._agent_down_after,
            **requirements.as_facts(),
        }


def _needs(requirements: Requirements, suitable: Pools) -> list[dict[str, Any]]:
    """What a host needs to have free to serve the claim: devices of some pools, of NUMA nodes, from ports.

    These conditions are necessary, not sufficient: two requests may want the same device.
    """
    needs = [
        {
            "pools": [pool_id for pool_id, kind in suitable.items() if satisfies(request, kind)],
            "count": request.count,
            "cells": sorted(requirements.numa_cells)
            if requirements.numa_cells and request.numa_policy in _NEAR_ONLY
            else None,
            "ports": 0,
        }
        for request in requirements.requests
    ]
    isolated = requirements.group_policy is GroupPolicy.ISOLATE
    if requirements.device_count > 1 and (isolated or len(needs) > 1):
        ports = requirements.device_count if isolated else 0
        needs.append(
            {"pools": list(suitable), "count": requirements.device_count, "cells": None, "ports": ports}
        )
    return needs


def _match(
    requirements: Requirements, pools: Pools, rows: list[tuple[Any, ...]]
) -> tuple[Placement | None, str | None]:
    """The first placement, and after which kind of host the next page begins; None: there is no next page."""
    free = [Free._make(row[:-2]) for row in rows]
    return fleet.choose(requirements, pools, free, ()), _last_kind(rows)


def _last_kind(rows: list[tuple[Any, ...]]) -> str | None:
    kinds, last = rows[0][-2:] if rows else (0, None)
    return last if kinds == _KINDS else None


def _next_page(rows: list[tuple[Any, ...]]) -> Mapping[str, Any] | None:
    last = _last_kind(rows)
    return None if last is None else {"after": last}
