"""Claim, move and release: each is one call of a function in the database, which locks, checks and writes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.db.prepared import Prepared
from portclaim.common.db.states import as_errors
from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import (
    ClaimNotFound,
    ClaimRefused,
    InvalidRequest,
    MoveNotFound,
    ServiceUnavailable,
)
from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.matching import Kind
from portclaim.common.rpc.messages import Claim, ClaimRequest, ExplainRequest, Explanation
from portclaim.common.rpc.move_messages import Move
from portclaim.services.scheduler import explanation, fleet, statements, waiting_statements
from portclaim.services.scheduler.fleet import Free, Pools, Wanted
from portclaim.services.scheduler.packing import Packing

_FEW = 8  # ports from the top of an index that a claim tries before it looks again
_SPARE_WHOLE_PORTS = 64  # while so many are left, a claim begins a whole port rather than wait for one in use
_ROUNDS = 3  # on the short way, before the long one
_POOLS_FOR = 10.0  # seconds until the short way looks for new pools; the long way always does


class ClaimEngine:
    """Makes and releases claims. Threads may share one.

    ``resend_after``: seconds until an unanswered step is sent again. ``patience``: seconds that a claim
    goes on while others take what it has chosen. ``agent_down_after``: seconds of an agent's silence
    after which its host takes no claims.
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
        self._packing = packing
        self._claim_vfs = {on: statements.claim_vfs(packing, on_hosts=on) for on in (False, True)}
        self._claim_whole = {on: statements.claim_whole(packing, on_hosts=on) for on in (False, True)}
        self._claim_beside = statements.claim_beside(packing)
        self._near_hosts = statements.near_hosts(packing)
        self._read_free = {where: statements.free_devices(packing, where) for where in statements.WHERE}
        self._resend_after = resend_after
        self._patience = patience
        self._agent_down_after = agent_down_after
        self._pools: Pools = {}
        self._pools_until = 0.0

    def claim(self, request: ClaimRequest, wanted: Wanted) -> Claim:
        """Reserve what is wanted on one host, or nothing. The same id with the same request: the same claim.

        Raises :class:`ClaimRefused` only if there was a moment at which no host could serve the claim, or
        others who want the same were waiting; with ``wait`` the claim waits instead. Raises
        :class:`ClaimConflict`; :class:`ServiceUnavailable` when patience ends or the database is away.
        """
        facts = self._facts(request, wanted)
        try:
            made = self._short_way(wanted, facts) or self._long_way(
                wanted, facts, statements.CLAIM_DEVICES, statements.CLAIM_MADE
            )
        except ClaimRefused:  # others wait
            made = None
        if made is None and request.wait is not None:
            made = self._answer(waiting_statements.WAIT, {**facts, "seconds": float(request.wait)})
        if made is None:
            raise self._refusal(wanted, facts)
        return Claim.model_validate_json(made)

    def move(self, source_claim_id: UUID, target: ClaimRequest, wanted: Wanted) -> Move:
        """Reserve what is wanted as the target of a move. The same id with the same request: the same move.

        Raises what :meth:`claim` does, and :class:`MoveConflict`.
        """
        facts = {**self._facts(target, wanted), "source_claim_id": str(source_claim_id)}
        made = self._answer(statements.MOVE_MADE, facts) or self._long_way(
            wanted, facts, statements.MOVE_CLAIM, statements.MOVE_MADE
        )
        if made is None:
            raise self._refusal(wanted, facts)
        return Move.model_validate_json(made)

    def complete_move(self, claim_id: UUID) -> Move:
        """Release the source, now or when the target is allocated. Raises :class:`MoveNotFound`,
        :class:`MoveConflict`."""
        return self._end_move(statements.COMPLETE_MOVE, claim_id)

    def revert_move(self, claim_id: UUID) -> Move:
        """Release the target. Raises :class:`MoveNotFound`, :class:`MoveConflict`."""
        return self._end_move(statements.REVERT_MOVE, claim_id)

    def release(self, claim_id: UUID) -> Claim:
        """Begin to give a claim's devices back; one that is ending or has ended stays as it is.

        Raises :class:`ClaimNotFound`.
        """
        return self._end(statements.BEGIN_RELEASE, claim_id, resend_after=self._resend_after)

    def force_release(self, claim_id: UUID, cause: str) -> Claim:
        """End a claim of a silent host without a word from its agent.

        Raises :class:`ClaimNotFound`, :class:`HostIsAlive`, :class:`InvalidRequest` for one that waits.
        """
        ended = self._end(
            statements.FORCE_RELEASE, claim_id, agent_down_after=self._agent_down_after, cause=cause
        )
        if ended.status == "waiting":
            raise InvalidRequest(f"claim {claim_id} waits and holds nothing: release it without force")
        return ended

    def explain(self, request: ExplainRequest, wanted: Wanted) -> Explanation:
        """What would become of such a claim now. Reserves and locks nothing."""
        pools = self._read_pools()
        free = self._free_devices(wanted, pools, near=False)
        served = fleet.choose(wanted, pools, free, ()) is not None
        return self._explain(wanted, pools, {"request": request.model_dump_json()}, served=served)

    def _short_way(self, wanted: Wanted, facts: Mapping[str, Any]) -> str | None:
        """One request of devices from one port, as nearly all are: chosen and taken in one statement.

        First among the ports that nobody is at work on; then, rather than begin a whole port, the lock
        of the best one is waited for. None says nothing: the long way has to look.
        """
        pools = self._pools if time.monotonic() < self._pools_until else self._read_pools()
        pool_ids = wanted.suitable(pools)
        statement = self._on_one_port(wanted, pool_ids)
        if statement is None:
            return None
        facts = {**facts, "pool_ids": list(pool_ids), "count": wanted.device_count, "few": _FEW}
        spare = _SPARE_WHOLE_PORTS if self._packing.keeps_ports_whole else 0
        beside = (
            self._packing.keeps_ports_whole and len(pool_ids) == 1 and statement is self._claim_vfs[False]
        )
        if beside and (made := self._answer(self._claim_beside, facts)):
            return made
        for _ in range(_ROUNDS):
            for pass_ in (
                {"wait": False, "spare_whole_ports": spare},
                {"wait": True, "spare_whole_ports": 0},
            ):
                if made := self._answer(statement, {**facts, **pass_}):
                    return made
        return None

    def _on_one_port(self, wanted: Wanted, pools: Mapping[int, Kind]) -> Prepared | None:
        """The statement that can serve the whole claim from one port, if there is one."""
        if not pools or len(wanted.requests) > 1 or wanted.is_particular:
            return None
        on_hosts = wanted.hosts is not None
        vfs = {kind.dev_type is DeviceType.VF for kind in pools.values()}
        if vfs == {True}:
            return self._claim_vfs[on_hosts]
        return self._claim_whole[on_hosts] if vfs == {False} and wanted.device_count == 1 else None

    def _long_way(
        self, wanted: Wanted, facts: Mapping[str, Any], take: Prepared, made: Prepared
    ) -> str | None:
        """Read what is free at one moment, choose exactly, ``take`` it; again if somebody was faster.

        None: there was a moment at which no host could serve the claim.
        Ports that others are at work on are passed over at first. Once nothing else is left, their locks
        are waited for: passing over may change what is chosen, never the answer.
        """
        deadline = time.monotonic() + self._patience
        busy: set[int] = set()
        near, wait = True, False
        while time.monotonic() < deadline:
            pools = self._read_pools()
            free = self._free_devices(wanted, pools, near=near)
            placement = fleet.choose(wanted, pools, free, busy)
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
            elif self._read_pools() == pools:  # or else one more kind has appeared meanwhile
                return None
        raise ServiceUnavailable("too many claims at once want the same devices; calling again is safe")

    def _free_devices(self, wanted: Wanted, pools: Pools, *, near: bool) -> list[Free]:
        """What is free for the claim: on the hosts that it names, or else on those ``near`` or on all."""
        facts = {
            "pool_ids": list(wanted.suitable(pools)),
            "count": wanted.device_count,
            "few": _FEW,
            "agent_down_after": self._agent_down_after,
            **wanted.as_facts(),
        }
        where = "anywhere"
        if wanted.hosts is not None:
            where = "on named hosts"
        elif near:
            where = "on hosts"
            facts["node_ids"] = [node_id for (node_id,) in self._near_hosts.rows(self._engine, facts)]
        return [Free._make(row) for row in self._read_free[where].rows(self._engine, facts)]

    def _read_pools(self) -> Pools:
        self._pools = pools = in_transaction(self._engine, fleet.read_pools)
        self._pools_until = time.monotonic() + _POOLS_FOR
        return pools

    def _explain(
        self, wanted: Wanted, pools: Pools, facts: Mapping[str, Any], *, served: bool
    ) -> Explanation:
        in_line = waiting_statements.IN_LINE.value(self._engine, facts)
        served = served and not in_line
        why = in_transaction(
            self._engine,
            lambda c: explanation.explain(c, wanted, pools, self._agent_down_after, served=served),
        )
        if in_line:
            first = f"others that want the same wait already: {in_line}"
            return why.model_copy(update={"nearest_miss": first})
        return why

    def _refusal(self, wanted: Wanted, facts: Mapping[str, Any]) -> ClaimRefused:
        why = self._explain(wanted, self._pools, facts, served=False)
        return ClaimRefused(
            f"no host can serve this claim now: {why.nearest_miss}",
            explanation=why.model_dump(mode="json"),
        )

    def _end(self, statement: Prepared, claim_id: UUID, **facts: Any) -> Claim:
        ended = self._answer(statement, {"claim_id": str(claim_id), **facts})
        if ended is None:
            raise ClaimNotFound(f"there is no claim {claim_id}", claim_id=str(claim_id))
        return Claim.model_validate_json(ended)

    def _end_move(self, statement: Prepared, claim_id: UUID) -> Move:
        ended = self._answer(statement, {"claim_id": str(claim_id), "resend_after": self._resend_after})
        if ended is None:
            raise MoveNotFound(f"there is no move to claim {claim_id}", claim_id=str(claim_id))
        return Move.model_validate_json(ended)

    def _facts(self, request: ClaimRequest, wanted: Wanted) -> dict[str, Any]:
        return {
            "claim_id": str(request.claim_id),
            "instance_id": str(request.instance_id),
            "request": request.model_dump_json(exclude={"claim_id", "wait"}),
            "resend_after": self._resend_after,
            "agent_down_after": self._agent_down_after,
            **wanted.as_facts(),
        }

    def _answer(self, statement: Prepared, facts: Mapping[str, Any]) -> str | None:
        with as_errors(claim_id=facts["claim_id"]):
            answer: str | None = statement.value(self._engine, facts)
        return answer
