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

from portclaim.common import tracing
from portclaim.common.db.audit import Order
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
from portclaim.common.metrics.catalogue import CLAIM_PHASES
from portclaim.common.rpc import versions
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest, ExplainRequest, Explanation
from portclaim.common.rpc.move_messages import Move, MoveRequest
from portclaim.services.scheduler import (
    explanation,
    fleet,
    maintenance,
    neighbours,
    queue_statements,
    statements,
)
from portclaim.services.scheduler.explanation import Refusals
from portclaim.services.scheduler.fast_path import FastPath
from portclaim.services.scheduler.fleet import Pools, Requirements
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.room import Room

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
        self._take = CLAIM_PHASES.timed("commit")(self._answer)
        self._fast_path = FastPath(packing, self._take)
        self._room = Room(engine, packing, agent_down_after)
        self._refusals = Refusals(engine, agent_down_after)
        self.resend_after = resend_after
        self._patience = patience
        self._agent_down_after = agent_down_after
        self._pools: Pools = {}
        self._pools_until = 0.0

    def claim_at_once(self, request: ClaimRequest, requirements: Requirements) -> Claim | None:
        """:meth:`claim`, if a port in use has the devices. Waits for no lock. None: :meth:`claim` decides."""
        facts = self.facts(request, requirements)
        try:
            made = self._fast_path.on_port_in_use(requirements, self.recent_pools(), facts)
        except ClaimRefused:  # other claims are in the queue
            made = None
        return None if made is None else Claim.model_validate_json(made, extra="ignore")

    def claim(self, request: ClaimRequest, requirements: Requirements, *, not_at_once: bool = False) -> Claim:
        """Reserve all required devices on one host, or none. The same id with the same request is the same
        claim. ``not_at_once``: :meth:`claim_at_once` has just failed.

        Raises :class:`ClaimRefused` only if there was a moment at which no host could serve the claim, or if
        claims with the same requests are waiting; a request with ``wait`` joins their queue instead. Raises
        :class:`ClaimConflict`, and :class:`ServiceUnavailable` when ``patience`` ends or the database is
        away.
        """
        facts = self.facts(request, requirements)
        try:
            requirements = neighbours.resolve(self._engine, requirements)
        except InvalidRequest:
            # A claim that it names may have ended since an earlier call made this claim.
            if (made := self._answer(statements.EXISTING_CLAIM, facts)) is None:
                raise
            return Claim.model_validate_json(made, extra="ignore")
        facts |= requirements.as_facts()
        try:
            made = self._quickly(requirements, facts, not_at_once) or self._exact_path(
                requirements, facts, statements.CLAIM_CHOSEN_DEVICES, statements.EXISTING_CLAIM
            )
        except ClaimRefused:  # other claims are in the queue
            made = None
        if made is None and request.wait is not None:
            made = self._answer(queue_statements.ENQUEUE_CLAIM, {**facts, "seconds": float(request.wait)})
        if made is None:
            raise self._refusal(requirements, facts)
        return Claim.model_validate_json(made, extra="ignore")

    def move(self, asked: MoveRequest, target: ClaimRequest, requirements: Requirements) -> Move:
        """Reserve the target of a move. The same id with the same request is the same move.

        Raises what :meth:`claim` does, and :class:`MoveConflict`.
        """
        source = {"source_claim_id": str(asked.source_claim_id), "who": asked.who, "reason": asked.reason}
        facts = {**self.facts(target, requirements), **source}
        if asked.live:
            facts["request"] = json.dumps(json.loads(facts["request"]) | {"live_migration": True})
        made = self._answer(statements.EXISTING_MOVE, facts) or self._exact_path(
            requirements, facts, statements.MOVE_CLAIM, statements.EXISTING_MOVE
        )
        if made is None:
            raise self._refusal(requirements, facts)
        return Move.model_validate_json(made, extra="ignore")

    def complete_move(self, claim_id: UUID, order: Order) -> Move:
        """Release the source, now or when the target is allocated.

        Raises :class:`MoveNotFound`, :class:`MoveConflict`.
        """
        return self._end_move(statements.COMPLETE_MOVE, claim_id, order)

    def revert_move(self, claim_id: UUID, order: Order) -> Move:
        """Release the target. Raises :class:`MoveNotFound`, :class:`MoveConflict`."""
        return self._end_move(statements.REVERT_MOVE, claim_id, order)

    def attach(self, claim_id: UUID) -> Claim:
        """Let the agent attach the devices of a claim that was made with ``attach`` on-call.

        Raises :class:`ClaimNotFound`.
        """
        return self._end(statements.BEGIN_ATTACH, claim_id, resend_after=self.resend_after)

    def release(self, claim_id: UUID) -> Claim:
        """Begin the release of a claim. A claim that is being released or has ended stays as it is.

        Raises :class:`ClaimNotFound`.
        """
        return self._end(statements.BEGIN_RELEASE, claim_id, resend_after=self.resend_after)

    def force_release(self, claim_id: UUID, who: str, reason: str) -> Claim:
        """End a claim of a host whose agent is silent, although the agent has detached nothing.

        Raises :class:`ClaimNotFound`, :class:`HostIsAlive`, and :class:`InvalidRequest` for a waiting claim.
        """
        ended = self._end(
            statements.FORCE_RELEASE,
            claim_id,
            agent_down_after=self._agent_down_after,
            cause=maintenance.forced(who, reason),
            who=who,
            reason=reason,
        )
        if ended.status == "waiting":
            raise InvalidRequest(f"claim {claim_id} is waiting and holds nothing: release it without force")
        return ended

    def explain(self, request: ExplainRequest, requirements: Requirements) -> Explanation:
        """Would such a claim be served now, and why not? Reserves and locks nothing."""
        requirements = neighbours.resolve(self._engine, requirements)
        pools = self._read_pools()
        facts = {"request": json.dumps(versions.to_send(request)[0])}
        served = (
            not queue_statements.QUEUE_LENGTH.value(self._engine, facts)
            and self._room.choose(requirements, pools) is not None
        )
        why = explanation.explain(self._engine, requirements, pools, self._agent_down_after, served=served)
        return self._behind_queue(why, facts)

    def _quickly(self, requirements: Requirements, facts: Mapping[str, Any], not_at_once: bool) -> str | None:
        pools = self.recent_pools()
        at_once = None if not_at_once else self._fast_path.on_port_in_use(requirements, pools, facts)
        return at_once or self._fast_path.claim(
            requirements,
            pools,
            facts,
            lambda: self._is_refused(requirements, pools, statements.EXISTING_CLAIM, facts),
        )

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
        busy_ports: set[int] = set()
        busy_hosts: set[int] = set()
        near, wait = True, False
        while time.monotonic() < deadline:
            pools = self._read_pools()
            if not near:
                placement = self._room.choose(requirements, pools, busy_hosts)
            elif near := self._room.may_serve(requirements, pools):
                placement = self._room.choose_near(requirements, pools, busy_ports)
            else:
                placement = None
            if placement is not None:
                taken = {**facts, **placement._asdict(), "wait": wait}
                if answer := self._take(take, taken):
                    return answer
                if not wait:
                    busy_ports.update(placement.port_ids)
                    busy_hosts.add(placement.compute_node_id)
            elif near:
                near = False
            elif busy_hosts:
                busy_hosts, wait = set(), True
            elif answer := self._answer(made, facts):
                return answer
            elif self._read_pools() == pools:  # else a new pool has appeared meanwhile
                return None
        raise ServiceUnavailable("too many claims compete for the same devices: call again, which is safe")

    def _is_refused(
        self, requirements: Requirements, pools: Pools, made: PreparedStatement, facts: Mapping[str, Any]
    ) -> bool:
        """Was there a moment at which no host could serve the claim, and has no other call ``made`` it?"""
        return (
            self._room.choose(requirements, pools) is None
            and self._answer(made, facts) is None
            and self._read_pools() == pools  # else a new pool has appeared meanwhile
        )

    def recent_pools(self) -> Pools:
        """The pools as they were some seconds ago at most. A refusal needs the present ones."""
        return self._pools if time.monotonic() < self._pools_until else self._read_pools()

    def _read_pools(self) -> Pools:
        self._pools = in_transaction(self._engine, fleet.read_pools)
        self._pools_until = time.monotonic() + _POOLS_FOR
        return self._pools

    def _refusal(self, requirements: Requirements, facts: Mapping[str, Any]) -> ClaimRefused:
        why = self._behind_queue(self._refusals.explain(requirements, self._pools), facts)
        miss = why.nearest_miss or "no host can serve this claim now"
        return ClaimRefused(miss, explanation=why.model_dump(mode="json"))

    def _behind_queue(self, why: Explanation, facts: Mapping[str, Any]) -> Explanation:
        """The same, unless claims with the same requests wait."""
        if queued := queue_statements.QUEUE_LENGTH.value(self._engine, facts):
            words = f"claims with the same requests are waiting in a queue: {queued}"
            return why.model_copy(update={"reason": "queue", "nearest_miss": words})
        return why

    def _end(self, statement: PreparedStatement, claim_id: UUID, **facts: Any) -> Claim:
        traces = tracing.of_claims([str(claim_id)])
        ended = self._answer(statement, {"claim_id": str(claim_id), "traces": traces, **facts})
        if ended is None:
            raise ClaimNotFound(f"there is no claim {claim_id}", claim_id=str(claim_id))
        return Claim.model_validate_json(ended, extra="ignore")

    def _end_move(self, statement: PreparedStatement, claim_id: UUID, order: Order) -> Move:
        facts = {"claim_id": str(claim_id), "resend_after": self.resend_after, **order._asdict()}
        ended = self._answer(statement, facts)
        if ended is None:
            raise MoveNotFound(f"there is no move to claim {claim_id}", claim_id=str(claim_id))
        return Move.model_validate_json(ended, extra="ignore")

    def facts(self, request: ClaimRequest, requirements: Requirements) -> dict[str, Any]:
        """What the statements need to know of the claim."""
        return {
            "claim_id": str(request.claim_id),
            "instance_id": str(request.instance_id),
            # Without newer fields at their default: older releases wrote none.
            "request": versions.as_json(request, without={"claim_id", "wait"}),
            "resend_after": self.resend_after,
            "agent_down_after": self._agent_down_after,
            "traces": tracing.of_claims([str(request.claim_id)]),
            **requirements.as_facts(),
        }

    def _answer(self, statement: PreparedStatement, facts: Mapping[str, Any]) -> str | None:
        with as_errors(claim_id=facts["claim_id"]):
            answer: str | None = statement.value(self._engine, facts)
        return answer
