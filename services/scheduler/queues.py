"""Serve the waiting claims: the head of each queue, with ports that are reserved for it.

Claims with the same requests form a queue. The head of a queue is served as soon as enough devices are free.
Until then the ports of one host are reserved for it: those that can serve it once their present claims are
released. No other claim gets devices of a reserved port. So the head is served when these claims are
released, whatever else is claimed meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from pydantic import ValidationError

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import InvalidRequest
from portclaim.common.metrics.catalogue import WAITING_ENDED
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.errors import PciError
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.services.scheduler import fleet, neighbours, queue_statements
from portclaim.services.scheduler.dispatch import Send, dispatch_steps
from portclaim.services.scheduler.fleet import Free, Placement, Pools, Requirements
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.requirements import requirements_of
from portclaim.services.scheduler.room import Room

LOG = logging.getLogger(__name__)

CHANNEL = "portclaim_waiting"
"""Notified when a waiting claim may be served now."""

_HOSTS_AT_ONCE = 64
_TRIES = 3  # to claim devices that were free a moment ago


class _Head(NamedTuple):
    """The head of a queue, with what it asks for."""

    claim_id: UUID
    requirements: Requirements


@dataclass(frozen=True)
class WaitingQueues:
    """All queues. Any number of workers serve them: each passes over claims that another one has locked."""

    engine: sa.Engine
    packing: Packing
    aliases: Aliases
    send: Send
    resend_after: float
    agent_down_after: float

    @cached_property
    def _room(self) -> Room:
        return Room(self.engine, self.packing, self.agent_down_after)

    def work(self) -> bool:
        """Serve each queue once, in the order of arrival. Answer whether a claim was served: then its queue
        has a new head.

        Claims past their deadline expire. Each head that cannot be served gets ports reserved.
        """
        for (claim_id,) in queue_statements.OVERDUE.rows(self.engine, {}):
            queue_statements.EXPIRE_WAITING.value(self.engine, {"claim_id": claim_id})
            WAITING_ENDED.count("expired")
        heads = self._heads()
        if not heads:
            return False
        pools = in_transaction(self.engine, fleet.read_pools)
        unserved = [head for head in heads if not self._serve(head, pools)]
        self._reserve_ports(unserved, pools)
        return len(unserved) < len(heads)

    def _heads(self) -> list[_Head]:
        found = []
        for claim_id, request in queue_statements.QUEUE_HEADS.rows(self.engine, {}):
            try:
                wanted = requirements_of(ClaimRequest(claim_id=claim_id, **request), self.aliases)
                requirements = neighbours.resolve(self.engine, wanted, has_waited=True)
            except (InvalidRequest, PciError, ValidationError) as error:  # it may be a newer scheduler's
                LOG.warning("claim %s and its queue cannot be served: %s", claim_id, error)
            else:
                found.append(_Head(UUID(claim_id), requirements))
        return found

    def _serve(self, head: _Head, pools: Pools) -> bool:
        """Claim free devices for it, those of its reserved ports included.

        Try again if another claim was faster.
        """
        facts = self._facts(head, pools)
        free = queue_statements.free_for(self.packing)
        for _ in range(_TRIES):
            placement = self._room.choose(
                head.requirements, pools, statement=free, claim_id=facts["claim_id"]
            )
            if placement is None:
                return False
            made = queue_statements.SERVE_WAITING.value(self.engine, {**facts, **placement._asdict()})
            if made is not None:
                claim = Claim.model_validate_json(made, extra="ignore")
                WAITING_ENDED.count("served")
                LOG.info("waiting claim %s is served on host %s", claim.claim_id, claim.host)
                dispatch_steps([claim], self.send)
                return True
        return False

    def _reserve_ports(self, heads: list[_Head], pools: Pools) -> None:
        """Reserve for each head the ports that can serve it.

        A head that finds no such ports, because others have reserved them, comes before all later heads: none
        of them gets a port that could serve it. So it gets its ports when the heads before it are served.
        """
        reserved: dict[UUID, set[int]] = {}
        for claim_id, port_id in queue_statements.RESERVED_PORTS.rows(self.engine, {}):
            reserved.setdefault(UUID(claim_id), set()).add(port_id)
        reservable_by_kind: dict[str, _Reservable] = {}  # many queues ask for the same kind of devices
        wanted_by_earlier: set[int] = set()
        for head in heads:
            facts = self._facts(head, pools)
            own = reserved.get(head.claim_id, set())
            if own and fleet.choose(
                head.requirements, pools, self._read(queue_statements.RESERVED, facts), ()
            ):
                continue
            kind = str([facts[name] for name in ("pool_ids", "needs", "hosts", "avoid_hosts")])
            reservable = reservable_by_kind.setdefault(kind, _Reservable(self.engine, facts))
            others = set().union(*(ports for of, ports in reserved.items() if of != head.claim_id))
            placement = reservable.choose(head.requirements, pools, others | wanted_by_earlier)
            ports = set() if placement is None else set(placement.port_ids)
            if placement is None and reservable.choose(head.requirements, pools, set()):
                wanted_by_earlier |= reservable.ports
            if ports != own:
                queue_statements.RESERVE_PORTS.value(self.engine, {**facts, "port_ids": sorted(ports)})
                reserved[head.claim_id] = ports

    def _read(self, statement: PreparedStatement, facts: Mapping[str, Any]) -> list[Free]:
        return [Free._make(row) for row in statement.rows(self.engine, facts)]

    def _facts(self, head: _Head, pools: Pools) -> dict[str, Any]:
        return {
            **self._room.facts(head.requirements, pools),
            "claim_id": str(head.claim_id),
            "resend_after": self.resend_after,
        }


class _Reservable:
    """What claims of one kind could take if all other claims were released: of the best hosts first."""

    def __init__(self, engine: sa.Engine, facts: Mapping[str, Any]) -> None:
        self.ports: set[int] = set()
        """The ports read so far."""
        self._engine = engine
        self._facts = facts
        self._seen: list[int] = []
        self._pages: list[list[Free]] = []

    def choose(self, requirements: Requirements, pools: Pools, busy: Collection[int]) -> Placement | None:
        """The first placement that takes nothing of a busy port. None: no host has one."""
        for page in self._read():
            if placement := fleet.choose(requirements, pools, page, busy):
                return placement
        return None

    def _read(self) -> Iterator[list[Free]]:
        yield from list(self._pages)
        while True:
            facts = {**self._facts, "seen": self._seen, "limit": _HOSTS_AT_ONCE}
            hosts = [id_ for (id_,) in queue_statements.RESERVABLE_HOSTS.rows(self._engine, facts)]
            if not hosts:
                return
            self._seen += hosts
            rows = queue_statements.RESERVABLE.rows(self._engine, {**facts, "node_ids": hosts})
            page = [Free._make(row) for row in rows]
            self._pages.append(page)
            self.ports.update(device.port_id for device in page)
            yield page
