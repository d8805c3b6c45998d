"""Find the hosts that could serve a claim now, in the order in which claims would take them.

A search goes the two ways of a claim. For a request that one port can serve, it follows the indexes of ports.
Every other request is matched exactly. Both ways read some hosts at a time, the best first. They lock and
reserve nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.filters import satisfies
from portclaim.common.rpc import versions
from portclaim.common.rpc.candidate_messages import (
    Candidate,
    CandidateDevice,
    Candidates,
    CandidatesRequest,
    DevicesLeft,
)
from portclaim.common.rpc.claim_messages import ExplainRequest
from portclaim.services.scheduler import candidate_statements, cursor, fleet, neighbours
from portclaim.services.scheduler.candidate_order import Next, cut_off_at, in_order
from portclaim.services.scheduler.fleet import Free, Placement, Pools, Requirements
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.statements import FEW, where_to_look

_MOST_AT_ONCE = 256  # rows of each list, and hosts, that one statement reads


class _More(NamedTuple):
    """What else is known of a free device, and of its host. The columns of ``free_on_hosts`` after Free's."""

    host: str
    address: str
    parent_address: str | None
    room: int
    place: int
    begins_port: bool
    vfs: int
    pfs_of_host: int
    vfs_of_host: int
    others_of_host: int


class _Found(NamedTuple):
    """A host that could serve the claim."""

    node_id: int
    candidate: Candidate


class CandidateSearch:
    """Finds candidates. Threads may share one.

    ``agent_down_after``: seconds of an agent's silence after which its host takes no claims.
    """

    def __init__(self, engine: sa.Engine, packing: Packing, agent_down_after: float) -> None:
        self._engine = engine
        self._packing = packing
        self._agent_down_after = agent_down_after

    def find(self, request: CandidatesRequest, requirements: Requirements) -> Candidates:
        """The best hosts, or those that come after the hosts of an earlier answer.

        Raises :class:`InvalidRequest` for a cursor of another search, and if ``near`` or ``apart_from`` names
        a claim that has no host.
        """
        same = {name: getattr(request, name) for name in ExplainRequest.model_fields}
        asked = versions.to_send(ExplainRequest.model_construct(**same))[0]
        seen = set() if request.after is None else cursor.read(asked, request.after)
        requirements = neighbours.resolve(self._engine, requirements)
        facts = {"request": json.dumps(asked)}
        [(queued, pools)] = candidate_statements.SITUATION.rows(self._engine, facts)
        if queued:
            return Candidates(candidates=[], queued=queued, after=None)
        search = _Search(
            self._engine, self._packing, self._agent_down_after, requirements, fleet.as_pools(pools), seen
        )
        found = search.best(request.limit + 1)
        after = None
        if len(found) > request.limit:  # the one too many says only that there are more
            after = cursor.write(asked, seen - {found.pop().node_id})
        return Candidates(candidates=[each.candidate for each in found], queued=0, after=after)


@dataclass
class _Search:
    """One search. It adds every host that it has decided about to ``seen``, and passes over these hosts."""

    engine: sa.Engine
    packing: Packing
    agent_down_after: float
    requirements: Requirements
    pools: Pools
    seen: set[int]

    def __post_init__(self) -> None:
        suitable = self.requirements.suitable(self.pools)
        where = where_to_look(self.requirements.hosts)
        self._one_port = self.requirements.from_one_port(suitable)
        self._next_on_one_port = (
            candidate_statements.next_devices(self.packing, where)
            if self._one_port == "whole"
            else candidate_statements.next_ports(self.packing, where)
        )
        self._next_near = candidate_statements.next_near(self.packing, where)
        self._wanted = [
            (request.count, [pool_id for pool_id, kind in suitable.items() if satisfies(request, kind)])
            for request in self.requirements.requests
        ]
        self._facts = {
            "pool_ids": list(suitable),
            "whole_pool_ids": [
                pool_id for pool_id, kind in suitable.items() if kind.dev_type is not DeviceType.VF
            ],
            "count": self.requirements.device_count,
            "agent_down_after": self.agent_down_after,
            "beside": self.packing.keeps_ports_whole and len(suitable) == 1 and where == "anywhere",
            **self.requirements.as_facts(),
        }

    def best(self, most: int) -> list[_Found]:
        """The best hosts that were not seen, at most so many.

        As for a claim, a host on which one port can serve all of it comes before other hosts.
        """
        found: list[_Found] = []
        if self._one_port:
            self._find_by_port(found, most)
        if self._one_port is None or self.requirements.device_count > 1:
            self._find_exactly(found, most)
        return found

    def _find_by_port(self, found: list[_Found], most: int) -> None:
        """Find hosts on which one port can serve the claim.

        If such a port has just been taken, several ports of its host may still serve the claim. So the host
        stays unseen.
        """
        changed: set[int] = set()
        while (wanted := min(most - len(found), _MOST_AT_ONCE)) > 0:
            few = FEW + 2 * wanted
            rows = self._next(self._next_on_one_port, few)
            hosts = in_order(rows, cut_off_at(rows, few))[:wanted]
            if not hosts:
                break
            free = self._read_free(hosts)
            for node_id in hosts:
                self.seen.add(node_id)
                devices = free.get(node_id, [])
                placement = _on_first_port(devices, self.requirements.device_count)
                if placement is None:
                    changed.add(node_id)
                else:
                    found.append(_Found(node_id, self._candidate(devices, placement)))
        self.seen -= changed

    def _find_exactly(self, found: list[_Found], most: int) -> None:
        """Find hosts on which several devices together can serve the claim."""
        few = min(FEW + most, _MOST_AT_ONCE)
        while len(found) < most and (rows := self._next(self._next_near, few)):
            hosts = {row.node_id for row in rows}
            free = self._read_free(self._with_enough(hosts))
            self.seen |= hosts - free.keys()
            ranks = {node_id: rank for rank, node_id in enumerate(free)}
            ranked = [row._replace(rank=ranks[row.node_id]) for row in rows if row.node_id in ranks]
            for node_id in in_order(ranked, cut_off_at(rows, few)):
                if len(found) == most:
                    return
                self.seen.add(node_id)
                devices = free[node_id]
                placement = fleet.choose(self.requirements, self.pools, [each for each, _ in devices], ())
                if placement is not None:
                    found.append(_Found(node_id, self._candidate(devices, placement)))
            few = min(2 * few, _MOST_AT_ONCE)

    def _next(self, statement: PreparedStatement, few: int) -> list[Next]:
        """Up to ``few`` rows from the top of each list, without the hosts that were seen."""
        facts = {**self._facts, "few": few, "seen": list(self.seen)}
        return [
            Next(node_id, (pool_id, part), rank)
            for node_id, pool_id, part, rank in statement.rows(self.engine, facts)
        ]

    def _with_enough(self, hosts: Collection[int]) -> list[int]:
        """Those of the hosts that have enough devices for each request, if it were the only one."""
        free: dict[int, Counter[int]] = {node_id: Counter() for node_id in hosts}
        facts = {**self._facts, "node_ids": list(hosts)}
        for node_id, pool_id, count in candidate_statements.FREE_COUNTS.rows(self.engine, facts):
            free[node_id][pool_id] = count
        return [
            node_id
            for node_id, counts in free.items()
            if all(sum(counts[pool] for pool in pool_ids) >= count for count, pool_ids in self._wanted)
        ]

    def _read_free(self, hosts: Collection[int]) -> dict[int, list[tuple[Free, _More]]]:
        """What each host has free, in the order of the policy. The host of the best device comes first."""
        by_host: dict[int, list[tuple[Free, _More]]] = {}
        for row in candidate_statements.free_on_hosts(self.packing).rows(
            self.engine, {**self._facts, "node_ids": list(hosts)}
        ):
            device = Free._make(row[: len(Free._fields)])
            by_host.setdefault(device.compute_node_id, []).append(
                (device, _More._make(row[len(Free._fields) :]))
            )
        return by_host

    def _candidate(self, free: Sequence[tuple[Free, _More]], placement: Placement) -> Candidate:
        by_id = {device.id: (device, more) for device, more in free}
        taken = [by_id[device_id] for device_id in placement.device_ids]
        vfs = [device for device, _ in taken if device.dev_type == DeviceType.VF]
        pfs = [device for device, _ in taken if device.dev_type == DeviceType.PF]
        begun = {device.port_id for device, more in taken if more.begins_port}
        host = free[0][1]
        return Candidate(
            host=host.host,
            devices=[
                self._device(device, more, request_index)
                for (device, more), request_index in zip(taken, placement.request_indexes, strict=True)
            ],
            left=DevicesLeft(
                pfs=host.pfs_of_host - len(pfs) - len(begun),
                vfs=host.vfs_of_host - len(vfs) - sum(more.vfs for _, more in taken),
                others=host.others_of_host - (len(taken) - len(pfs) - len(vfs)),
            ),
        )

    def _device(self, device: Free, more: _More, request_index: int) -> CandidateDevice:
        kind = self.pools[device.pool_id]
        return CandidateDevice.model_validate(
            {
                "address": more.address,
                "dev_type": device.dev_type,
                "vendor_id": kind.vendor_id,
                "product_id": kind.product_id,
                "numa_node": device.numa_node,
                "parent_address": more.parent_address,
                "request_index": request_index,
            }
        )


def _on_first_port(free: Sequence[tuple[Free, _More]], count: int) -> Placement | None:
    """What a claim of ``count`` devices of one port gets: the first ones of the best port that has enough."""
    for best, more in free:
        if more.room >= count and more.place <= FEW:
            of_port = sorted(
                (device for device, _ in free if device.port_id == best.port_id), key=lambda d: d.id
            )
            taken = of_port[:count]
            return Placement(
                compute_node_id=best.compute_node_id,
                device_ids=[device.id for device in taken],
                request_indexes=[0] * count,
                pool_ids=[device.pool_id for device in taken],
                port_ids=[best.port_id] * count,
            )
    return None
