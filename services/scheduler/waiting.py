"""Serve the claims that wait: the first of each line, and for it a port that nobody else gets.

Those that want the same thing form a line. Its first is served with whatever is free; until then the ports
of one host that would do once their holders have left are kept for it, as if they were drained for all
others. So it is served when these holders have left, whatever is claimed meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.db.prepared import Prepared
from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import InvalidRequest
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.errors import PciError
from portclaim.common.rpc.messages import Claim, ClaimRequest
from portclaim.services.scheduler import fleet, waiting_statements
from portclaim.services.scheduler.casting import Send, cast
from portclaim.services.scheduler.fleet import Free, Pools, Wanted
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.wish import wanted_by

LOG = logging.getLogger(__name__)

CHANNEL = "portclaim_waiting"
"""Notified, while somebody waits, when there may be room."""

_TRIES = 3  # to take what was free a moment ago


class _First(NamedTuple):
    """The first of a line, with what it wants."""

    claim_id: UUID
    wanted: Wanted


@dataclass(frozen=True)
class Lines:
    """All claims that wait. Any number of workers serve them: what one has in hand, the others pass over."""

    engine: sa.Engine
    packing: Packing
    aliases: Aliases
    send: Send
    resend_after: float
    agent_down_after: float

    def work(self) -> bool:
        """One round, in the order of arrival; answer whether one was served, and its line has a new first.

        The claims that are past their deadline end. Of the others, the first of each line is served, or
        ports are kept for it.
        """
        for (claim_id,) in waiting_statements.OVERDUE.rows(self.engine, {}):
            waiting_statements.EXPIRE.value(self.engine, {"claim_id": claim_id})
        firsts = self._firsts()
        if not firsts:
            return False
        pools = in_transaction(self.engine, fleet.read_pools)
        waits = [first for first in firsts if not self._serve(first, pools)]
        self._keep_ports(waits, pools)
        return len(waits) < len(firsts)

    def _firsts(self) -> list[_First]:
        found = []
        for claim_id, request in waiting_statements.FIRSTS.rows(self.engine, {}):
            try:
                wanted = wanted_by(ClaimRequest(claim_id=claim_id, **request), self.aliases)
            except (InvalidRequest, PciError) as error:
                LOG.warning("claim %s cannot be served, nor who waits behind it: %s", claim_id, error)
            else:
                found.append(_First(UUID(claim_id), wanted))
        return found

    def _serve(self, first: _First, pools: Pools) -> bool:
        """Claim for it what is free, its own ports included; again if somebody was faster."""
        facts = self._facts(first, pools)
        free = waiting_statements.free_for(self.packing, on_named_hosts=first.wanted.hosts is not None)
        for _ in range(_TRIES):
            placement = fleet.choose(first.wanted, pools, self._read(free, facts), ())
            if placement is None:
                return False
            made = waiting_statements.SERVE.value(self.engine, {**facts, **placement._asdict()})
            if made is not None:
                claim = Claim.model_validate_json(made)
                LOG.info("claim %s has waited, and is served on %s", claim.claim_id, claim.host)
                cast(claim, self.send)
                return True
        return False

    def _keep_ports(self, waits: list[_First], pools: Pools) -> None:
        """See that for each of these ports are kept that would do.

        Who finds none that is not kept for another comes before all later ones: of what would do for it,
        none of them gets any, so that it gets what it needs when those before it are served.
        """
        kept: dict[UUID, set[int]] = {}
        for claim_id, port_id in waiting_statements.KEPT.rows(self.engine, {}):
            kept.setdefault(UUID(claim_id), set()).add(port_id)
        all_that_would_do: dict[str, list[Free]] = {}  # which many lines have in common
        spoken_for: set[int] = set()
        for first in waits:
            facts = self._facts(first, pools)
            own = kept.get(first.claim_id, set())
            if own and fleet.choose(
                first.wanted, pools, self._read(waiting_statements.KEPT_WOULD_DO, facts), ()
            ):
                continue
            kind = str([facts[name] for name in ("pool_ids", "count", "hosts", "avoid_hosts")])
            if kind not in all_that_would_do:
                all_that_would_do[kind] = self._read(waiting_statements.WOULD_DO, facts)
            would_do = all_that_would_do[kind]
            others = set().union(*(ports for of, ports in kept.items() if of != first.claim_id))
            placement = fleet.choose(first.wanted, pools, would_do, others | spoken_for)
            ports = set() if placement is None else set(placement.port_ids)
            if placement is None and fleet.choose(first.wanted, pools, would_do, ()):
                spoken_for |= {device.port_id for device in would_do}
            if ports != own:
                waiting_statements.KEEP.value(self.engine, {**facts, "port_ids": sorted(ports)})
                kept[first.claim_id] = ports

    def _read(self, statement: Prepared, facts: Mapping[str, Any]) -> list[Free]:
        return [Free._make(row) for row in statement.rows(self.engine, facts)]

    def _facts(self, first: _First, pools: Pools) -> dict[str, Any]:
        return {
            "claim_id": str(first.claim_id),
            "pool_ids": list(first.wanted.suitable(pools)),
            "count": first.wanted.device_count,
            "resend_after": self.resend_after,
            "agent_down_after": self.agent_down_after,
            **first.wanted.as_facts(),
        }
