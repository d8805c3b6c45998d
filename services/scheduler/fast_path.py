"""Claim the devices of one request from one port, as most claims do, in one statement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.errors import ClaimRefused
from portclaim.services.scheduler import statements
from portclaim.services.scheduler.fleet import Pools, Requirements
from portclaim.services.scheduler.packing import Packing
from portclaim.services.scheduler.statements import FEW, WHERE, where_to_look

_SPARE_WHOLE_PORTS = 64  # with fewer left, a claim waits for a port in use rather than begin a whole one
_ROUNDS = 3  # before the exact path


class FastPath:
    """``answer`` executes a statement with these parameters: the claim that was made, or None.

    The methods answer that. None does not mean a refusal: the exact path decides. They raise
    :class:`ClaimRefused` if claims with the same requests are waiting in a queue.
    """

    def __init__(
        self, packing: Packing, answer: Callable[[PreparedStatement, Mapping[str, Any]], str | None]
    ) -> None:
        self._claim_vfs = {where: statements.claim_vfs(packing, where) for where in WHERE}
        self._claim_whole = {where: statements.claim_whole(packing, where) for where in WHERE}
        self._claim_on_port_in_use = statements.claim_on_port_in_use(packing)
        self._keeps_ports_whole = packing.keeps_ports_whole
        self._answer = answer

    def on_port_in_use(
        self, requirements: Requirements, pools: Pools, facts: Mapping[str, Any]
    ) -> str | None:
        """Claim VFs of one pool on a port in use that no other transaction has locked."""
        pool_ids = requirements.suitable(pools)
        if (
            not self._keeps_ports_whole
            or len(pool_ids) != 1
            or requirements.hosts is not None
            or requirements.from_one_port(pool_ids) != "vfs"
        ):
            return None
        return self._answer(self._claim_on_port_in_use, {**facts, **_devices(requirements, pool_ids)})

    def claim(
        self,
        requirements: Requirements,
        pools: Pools,
        facts: Mapping[str, Any],
        is_refused: Callable[[], bool],
    ) -> str | None:
        """First try ports that no other transaction has locked. Then wait for the lock of the best port
        rather than begin a whole port.

        ``is_refused`` is asked once: was there a moment at which no host could serve the claim? If so, this
        raises :class:`ClaimRefused` too.
        """
        pool_ids = requirements.suitable(pools)
        where = where_to_look(requirements.hosts)
        match requirements.from_one_port(pool_ids):
            case "vfs":
                statement = self._claim_vfs[where]
            case "whole":
                statement = self._claim_whole[where]
            case None:
                return None
        facts = {**facts, **_devices(requirements, pool_ids)}
        spare = _SPARE_WHOLE_PORTS if self._keeps_ports_whole else 0
        passes = ({"wait": False, "spare_whole_ports": spare}, {"wait": True, "spare_whole_ports": 0})
        for number, pass_ in enumerate(_ROUNDS * passes):
            if made := self._answer(statement, {**facts, **pass_}):
                return made
            if number == 0 and is_refused():
                raise ClaimRefused("no host can serve this claim now")
        return None


def _devices(requirements: Requirements, pool_ids: Mapping[int, Any]) -> dict[str, Any]:
    return {"pool_ids": list(pool_ids), "count": requirements.device_count, "few": FEW}
