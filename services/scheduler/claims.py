"""Claim, move and release. Each is one call of a function in the database, which locks, checks and writes.

The functions are in common/db/sql: claim.sql, moves.sql, release.sql.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.db.sqlstate import as_errors
from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import (
    ClaimNotFound,
    ClaimRefused,
    InvalidRequest,
    MoveNotFound,
    ServiceUnavailable,
)
from portclaim.common.rpc import versions
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest, ExplainRequest, Explanation
from portclaim.common.rpc.move_messages import Move
from portclaim.services.scheduler import explanation, fleet, neighbours, queue_statements, statements
from portclaim.services.scheduler.fleet import Free, Pools, Requirements
from portclaim.services.scheduler.free_statements import ON_HOSTS, free_devices, near_hosts
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.statements import FEW, WHERE, where_to_look

_SPARE_WHOLE_PORTS = 64  # with fewer left, a claim waits for a port in use rather than begin a whole one
_ROUNDS = 3  # of the fast path, before the exact path
_POOLS_FOR = 10.0  # seconds until the fast path reads the pools again; the exact path always does


class ClaimEngine:
    """Makes and releases claims. Threads may share one.

    ``resend_after``: seconds until an unanswered step is sent again. ``patience``: seconds that a claim tries
    again while other claims take the devices that it chose. ``agent_down_after``: seconds of an agent's
    silence after which its host takes no claims.
    """

    def __init__(
        self,
        engine: sa.Engine,
        packing: Packing,
        resend_after: float,
        patience: float,
        agent_down_after: float,
    ) -> None:
        self._engine = engine
        self.packing = packing
        self._claim_vfs = {where: statements.claim_vfs(packing, where) for where in WHERE}
        self._claim_whole = {where: statements.claim_whole(packing, where) for where in WHERE}
        self._claim_on_port_in_use = statements.claim_on_port_in_use(packing)
        self._near_hosts = {where: near_hosts(packing, where) for where in WHERE}
        self._read_free = {where: free_devices(packing, where) for where in ON_HOSTS}
        self._resend_after = resend_after
        self._patience = patience
        self._agent_down_after = agent_down_after
        self._pools: Pools = {}
        self._pools_until = 0.0

    def claim(self, request: ClaimRequest, requirements: Requirements) -> Claim:
        """Reserve all required devices on one host, or none. The same id with the same request is the same
        claim.

        Raises :class:`ClaimRefused` only if there was a moment at which no host could serve the claim, or if
        claims with the same requests are waiting; a request with ``wait`` joins their queue instead. Raises
        :class:`ClaimConflict`, and :class:`ServiceUnavailable` when ``patience`` ends or the database is
        away.
        """
        facts = self._facts(request, requirements)
        try:
            requirements = neighbours.resolve(self._engine, requirements)
        except InvalidRequest:
            # A claim that it names may have ended since an earlier call made this claim.
            if (made := self._answer(statements.EXISTING_CLAIM, facts)) is None:
                raise
            return Claim.model_validate_json(made, extra="ignore")
        facts |= requirements.as_facts()
        try:
            made = self._fast_path(requirements, facts) or self._exact_path(
                requirements, facts, statements.CLAIM_CHOSEN_DEVICES, statements.EXISTING_CLAIM
            )
        except ClaimRefused:  # other claims are in the queue
            made = None
        if made is None and request.wait is not None:
            made = self._answer(queue_statements.ENQUEUE_CLAIM, {**facts, "seconds": float(request.wait)})
        if made is None:
            raise self._refusal(requirements, facts)
        return Claim.model_validate_json(made, extra="ignore")

    def move(
        self, source_claim_id: UUID, target: ClaimRequest, requirements: Requirements, *, live: bool
    ) -> Move:
        """Reserve the target of a move. The same id with the same request is the same move.

        Raises what :meth:`claim` does, and :class:`MoveConflict`.
        """
        facts = {**self._facts(target, requirements), "source_claim_id": str(source_claim_id)}
        if live:
            facts["request"] = json.dumps(json.loads(facts["request"]) | {"live_migration": True})
        made = self._answer(statements.EXISTING_MOVE, facts) or self._exact_path(
            requirements, facts, statements.MOVE_CLAIM, statements.EXISTING_MOVE
        )
        if made is None:
            raise self._refusal(requirements, facts)
        return Move.model_validate_json(made, extra="ignore")

    def complete_move(self, claim_id: UUID) -> Move:
        """Release the source, now or when the target is allocated.

        Raises :class:`MoveNotFound`, :class:`MoveConflict`.
        """
        return self._end_move(statements.COMPLETE_MOVE, claim_id)

    def revert_move(self, claim_id: UUID) -> Move:
        """Release the target. Raises :class:`MoveNotFound`, :class:`MoveConflict`."""
        return self._end_move(statements.REVERT_MOVE, claim_id)

    def attach(self, claim_id: UUID) -> Claim:
        """Let the agent attach the devices of a claim that was made with ``attach`` on-call.

        Raises :class:`ClaimNotFound`.
        """
        return self._end(statements.BEGIN_ATTACH, claim_id, resend_after=self._resend_after)

    def release(self, claim_id: UUID) -> Claim:
        """Begin the release of a claim. A claim that is being released or has ended stays as it is.

        Raises :class:`ClaimNotFound`.
        """
        return self._end(statements.BEGIN_RELEASE, claim_id, resend_after=self._resend_after)

    def force_release(self, claim_id: UUID, cause: str) -> Claim:
        """End a claim of a host whose agent is silent, although the agent has detached nothing.

        Raises :class:`ClaimNotFound`, :class:`HostIsAlive`, and :class:`InvalidRequest` for a waiting claim.
        """
        ended = self._end(
            statements.FORCE_RELEASE, claim_id, agent_down_after=self._agent_down_after, cause=cause
        )
        if ended.status == "waiting":
            raise InvalidRequest(f"claim {claim_id} is waiting and holds nothing: release it without force")
        return ended

    def explain(self, request: ExplainRequest, requirements: Requirements) -> Explanation:
        """Would such a claim be served now, and why not? Reserves and locks nothing."""
        requirements = neighbours.resolve(self._engine, requirements)
        pools = self._read_pools()
        free = self._free_devices(requirements, pools, near=False)
        served = fleet.choose(requirements, pools, free, ()) is not None
        facts = {"request": json.dumps(versions.to_send(request)[0])}
        return self._explain(requirements, pools, facts, served=served)

    def _fast_path(self, requirements: Requirements, facts: Mapping[str, Any]) -> str | None:
        """Claim the devices of one request from one port, as most claims do, in one statement.

        First it tries ports that no other transaction has locked. Then it waits for the lock of the best port
        rather than begin a whole port. None does not mean a refusal: the exact path decides.
        """
        pools = self._pools if time.monotonic() < self._pools_until else self._read_pools()
        pool_ids = requirements.suitable(pools)
        where = where_to_look(requirements.hosts)
        match requirements.from_one_port(pool_ids):
            case "vfs":
                statement = self._claim_vfs[where]
            case "whole":
                statement = self._claim_whole[where]
            case None:
                return None
        facts = {**facts, "pool_ids": list(pool_ids), "count": requirements.device_count, "few": FEW}
        spare = _SPARE_WHOLE_PORTS if self.packing.keeps_ports_whole else 0
        beside = (
            self.packing.keeps_ports_whole and len(pool_ids) == 1 and statement is self._claim_vfs["anywhere"]
        )
        if beside and (made := self._answer(self._claim_on_port_in_use, facts)):
            return made
        for _ in range(_ROUNDS):
            for pass_ in (
                {"wait": False, "spare_whole_ports": spare},
                {"wait": True, "spare_whole_ports": 0},
            ):
                if made := self._answer(statement, {**facts, **pass_}):
                    return made
        return None

    def _exact_path(
        self,
        requirements: Requirements,
        facts: Mapping[str, Any],
        take: PreparedStatement,
        made: PreparedStatement,
    ) -> str | None:
        """Read what is free at one moment, choose exactly, ``take`` it. Try again if another claim was
        faster.

        None: there was a moment at which no host could serve the claim. At first, ports that other
        transactions have locked are skipped. When no other port is left, this waits for their locks: skipping
        may change which devices are chosen, never the answer.
        """
        deadline = time.monotonic() + self._patience
        busy: set[int] = set()
        near, wait = True, False
        while time.monotonic() < deadline:
            pools = self._read_pools()
            free = self._free_devices(requirements, pools, near=near)
            placement = fleet.choose(requirements, pools, free, busy)
            if placement is not None:
                taken = {**facts, **placement._asdict(), "wait": wait}
                if answer := self._answer(take, taken):
                    return answer
                busy |= set() if wait else set(placement.port_ids)
            elif near:
                near = False
            elif busy:
                busy, wait = set(), True
            elif answer := self._answer(made, facts):
                return answer
            elif self._read_pools() == pools:  # else a new pool has appeared meanwhile
                return None
        raise ServiceUnavailable("too many claims compete for the same devices: call again, which is safe")

    def _free_devices(self, requirements: Requirements, pools: Pools, *, near: bool) -> list[Free]:
        """What is free for the claim, on all hosts that may serve it. With ``near``, on the best of them."""
        facts = {
            "pool_ids": list(requirements.suitable(pools)),
            "count": requirements.device_count,
            "few": FEW,
            "agent_down_after": self._agent_down_after,
            **requirements.as_facts(),
        }
        hosts = requirements.hosts
        where = "anywhere" if hosts is None else "on named hosts"
        if near and (hosts is None or len(hosts) > FEW):
            near_hosts = self._near_hosts[where_to_look(hosts)].rows(self._engine, facts)
            where, facts["node_ids"] = "on hosts", [node_id for (node_id,) in near_hosts]
        return [Free._make(row) for row in self._read_free[where].rows(self._engine, facts)]

    def _read_pools(self) -> Pools:
        self._pools = pools = in_transaction(self._engine, fleet.read_pools)
        self._pools_until = time.monotonic() + _POOLS_FOR
        return pools

    def _explain(
        self, requirements: Requirements, pools: Pools, facts: Mapping[str, Any], *, served: bool
    ) -> Explanation:
        queued = queue_statements.QUEUE_LENGTH.value(self._engine, facts)
        served = served and not queued
        why = in_transaction(
            self._engine,
            lambda c: explanation.explain(c, requirements, pools, self._agent_down_after, served=served),
        )
        if queued:
            reason = f"claims with the same requests are waiting in a queue: {queued}"
            return why.model_copy(update={"nearest_miss": reason})
        return why

    def _refusal(self, requirements: Requirements, facts: Mapping[str, Any]) -> ClaimRefused:
        why = self._explain(requirements, self._pools, facts, served=False)
        return ClaimRefused(
            why.nearest_miss or "no host can serve this claim now",
            explanation=why.model_dump(mode="json"),
        )

    def _end(self, statement: PreparedStatement, claim_id: UUID, **facts: Any) -> Claim:
        ended = self._answer(statement, {"claim_id": str(claim_id), **facts})
        if ended is None:
            raise ClaimNotFound(f"there is no claim {claim_id}", claim_id=str(claim_id))
        return Claim.model_validate_json(ended, extra="ignore")

    def _end_move(self, statement: PreparedStatement, claim_id: UUID) -> Move:
        ended = self._answer(statement, {"claim_id": str(claim_id), "resend_after": self._resend_after})
        if ended is None:
            raise MoveNotFound(f"there is no move to claim {claim_id}", claim_id=str(claim_id))
        return Move.model_validate_json(ended, extra="ignore")

    def _facts(self, request: ClaimRequest, requirements: Requirements) -> dict[str, Any]:
        asked, _ = versions.to_send(request)  # without newer fields at their default: old releases wrote none
        return {
            "claim_id": str(request.claim_id),
            "instance_id": str(request.instance_id),
            "request": json.dumps({name: asked[name] for name in asked.keys() - {"claim_id", "wait"}}),
            "resend_after": self._resend_after,
            "agent_down_after": self._agent_down_after,
            **requirements.as_facts(),
        }

    def _answer(self, statement: PreparedStatement, facts: Mapping[str, Any]) -> str | None:
        with as_errors(claim_id=facts["claim_id"]):
            answer: str | None = statement.value(self._engine, facts)
        return answer
