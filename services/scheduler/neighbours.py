"""The hosts of the claims that a request names in ``near`` and ``apart_from``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.errors import InvalidRequest
from portclaim.services.scheduler.fleet import Requirements

_CLAIMS = PreparedStatement(
    "hosts_of_claims",
    """
    SELECT c.id::text, c.status, n.host
      FROM claims c
      LEFT JOIN compute_nodes n ON n.id = c.compute_node_id
     WHERE c.id = ANY(CAST(:claim_ids::text[] AS uuid[]))
    """,
)

_ENDED = frozenset({"released", "failed", "expired"})


class _Named(NamedTuple):
    """A claim that a request names."""

    status: str
    host: str | None


def resolve(engine: sa.Engine, requirements: Requirements, *, has_waited: bool = False) -> Requirements:
    """The requirements with hosts in place of ``near`` and ``apart_from``.

    A claim never changes its host, because a move makes another claim. So a claim that is named can only end
    before the devices are chosen. That does no harm: the claim is then served as if the other one had ended
    right after it.

    ``has_waited``: the request has waited in a queue, and claims that it names may have ended meanwhile. Such
    a claim still counts for ``near``, where its host is still known. It no longer counts for ``apart_from``.

    Raises :class:`InvalidRequest` for a claim that does not exist, has ended, or has no host yet; and if the
    claims in ``near`` are on several hosts.
    """
    named = [*requirements.near, *requirements.apart_from]
    if not named:
        return requirements
    rows = _CLAIMS.rows(engine, {"claim_ids": sorted(map(str, named))})
    known = {UUID(claim_id): _Named(status, host) for claim_id, status, host in rows}
    apart_from = requirements.apart_from
    if has_waited:
        apart_from = tuple(each for each in apart_from if each in known and known[each].status not in _ENDED)
    near = _hosts("near", requirements.near, known, may_have_ended=has_waited)
    avoided = _hosts("apart_from", apart_from, known).values()
    hosts = requirements.hosts
    if len({*near.values()}) > 1:
        places = ", ".join(f"claim {claim_id} on {host}" for claim_id, host in near.items())
        raise InvalidRequest(f"near names claims on several hosts, and a claim is on one host: {places}")
    for host in near.values():
        hosts = (host,) if hosts is None or host in hosts else ()
    return replace(
        requirements,
        hosts=hosts,
        avoid_hosts=(*requirements.avoid_hosts, *sorted({*avoided})),
        near=(),
        apart_from=(),
    )


def _hosts(
    field: str, claim_ids: Iterable[UUID], known: Mapping[UUID, _Named], *, may_have_ended: bool = False
) -> dict[UUID, str]:
    """The host of each claim. Raises :class:`InvalidRequest` if one has none."""
    hosts = {}
    for claim_id in claim_ids:
        claim = known.get(claim_id)
        if claim is None:
            raise InvalidRequest(f"{field}: there is no claim {claim_id}")
        if claim.status in _ENDED and not may_have_ended:
            raise InvalidRequest(
                f"{field}: claim {claim_id} has ended and is {claim.status}: leave it out of the request"
            )
        if claim.host is None:
            raise InvalidRequest(
                f"{field}: claim {claim_id} is {claim.status} and has no host"
                + (": name it after it has been served" if claim.status == "waiting" else "")
            )
        hosts[claim_id] = claim.host
    return hosts
