"""Several claims or releases in one call.

Neighbours in a batch that ask for the same are claimed together, in one statement and one commit. What that
leaves is claimed one by one, in the order of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from portclaim.common import tracing
from portclaim.common.errors import ClaimNotFound, InvalidRequest, PortclaimError
from portclaim.common.metrics.catalogue import CLAIM_PHASES
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.errors import PciError
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.services.scheduler import batch_statements, claim_outcomes
from portclaim.services.scheduler.claims import ClaimEngine
from portclaim.services.scheduler.fleet import Requirements
from portclaim.services.scheduler.requirements import requirements_of
from portclaim.services.scheduler.statements import FEW

Result = Claim | PortclaimError

_ROUNDS = 3  # of claims that are made together, while other transactions have locked the ports


class _Asked(NamedTuple):
    """A claim of a batch; its requirements, or why it has none."""

    request: ClaimRequest
    requirements: Requirements | PortclaimError


class ClaimBatches:
    """Makes and releases several claims at once. Threads may share one."""

    def __init__(self, engine: sa.Engine, claims: ClaimEngine, aliases: Aliases) -> None:
        self._engine = engine
        self._claims = claims
        self._aliases = aliases
        self._claim_vfs = batch_statements.claim_vfs_alike(claims.packing)
        self._claim_whole = batch_statements.claim_whole_alike(claims.packing)

    def claim(self, requests: Sequence[ClaimRequest]) -> list[Result]:
        """Each claim as :meth:`ClaimEngine.claim` answers it, or the error that it raises."""
        results: list[Result] = []
        for requirements, group in groupby(map(self._read, requests), key=_requirements):
            asked = [each.request for each in group]
            made = self.claim_alike(asked, requirements)
            for request in asked:  # if an id comes twice, it was made for the first request
                together = made.pop(request.claim_id, None)
                results += [together or self._claim_one(request, requirements)]
        claim_outcomes.count(requests, results)
        return results

    def release(self, claim_ids: Sequence[UUID]) -> list[Result]:
        """Each claim as :meth:`ClaimEngine.release` answers it, or :class:`ClaimNotFound`."""
        released = self.released(claim_ids, wait=True)
        claim_outcomes.released(released.values())
        return [
            released.get(claim_id) or ClaimNotFound(f"there is no claim {claim_id}", claim_id=str(claim_id))
            for claim_id in claim_ids
        ]

    def released(
        self, claim_ids: Sequence[UUID], *, wait: bool, parents: Mapping[str, str] | None = None
    ) -> dict[UUID, Claim]:
        """The claims that exist; without ``wait``, not those that others have locked.

        ``parents``: the traces of their callers. None: all are of this thread's.
        """
        facts: dict[str, Any] = {
            "claim_ids": [str(claim_id) for claim_id in claim_ids],
            "resend_after": self._claims.resend_after,
            "wait": wait,
        }
        facts["traces"] = tracing.of_claims(facts["claim_ids"] if parents is None else [], parents)
        rows = batch_statements.BEGIN_RELEASES.rows(self._engine, facts)
        return {
            UUID(claim_id): Claim.model_validate_json(claim, extra="ignore")
            for claim_id, claim in rows
            if claim is not None
        }

    def _read(self, request: ClaimRequest) -> _Asked:
        try:
            return _Asked(request, requirements_of(request, self._aliases))
        except PciError as error:
            return _Asked(request, InvalidRequest(str(error)))
        except PortclaimError as error:
            return _Asked(request, error)

    def claim_alike(
        self,
        asked: Sequence[ClaimRequest],
        requirements: Requirements | PortclaimError,
        parents: Mapping[str, str] | None = None,
    ) -> dict[UUID, Claim]:
        """The claims that could be made together. ``parents``: the traces of their callers."""
        made: dict[UUID, Claim] = {}
        if isinstance(requirements, PortclaimError) or requirements.limits_hosts:
            return made
        pool_ids = requirements.suitable(self._claims.recent_pools())
        statement = {"vfs": self._claim_vfs, "whole": self._claim_whole, None: None}[
            requirements.from_one_port(pool_ids)
        ]
        for _ in range(_ROUNDS):
            left = {each.claim_id: each for each in reversed(asked) if each.claim_id not in made}
            if statement is None or len(left) < 2:
                break
            each_facts = [self._claims.facts(request, requirements) for request in reversed(left.values())]
            facts = {
                **each_facts[0],
                "claim_ids": [facts["claim_id"] for facts in each_facts],
                "instance_ids": [facts["instance_id"] for facts in each_facts],
                "requests": [facts["request"] for facts in each_facts],
                "pool_ids": list(pool_ids),
                "count": requirements.device_count,
                "number": len(left),
                "traces": tracing.of_claims(
                    [facts["claim_id"] for facts in each_facts] if parents is None else [], parents
                ),
                "few": len(left) + FEW,
            }
            with CLAIM_PHASES.timed("commit"):
                rows = statement.rows(self._engine, facts)
            if not rows:
                break
            for claim_id, claim in rows:
                made[UUID(claim_id)] = Claim.model_validate_json(claim, extra="ignore")
        return made

    def _claim_one(self, request: ClaimRequest, requirements: Requirements | PortclaimError) -> Result:
        try:
            if isinstance(requirements, PortclaimError):
                return requirements
            return self._claims.claim(request, requirements)
        except PortclaimError as error:
            return error


def _requirements(asked: _Asked) -> Requirements | PortclaimError:
    return asked.requirements
