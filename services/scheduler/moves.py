"""What the target of a move asks for: the same as its source, on another host, unless the caller says
otherwise.
"""

from __future__ import annotations

import sqlalchemy as sa

from portclaim.common.errors import ClaimNotFound
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.common.rpc.move_messages import MoveRequest

_SOURCE = sa.text("""
    SELECT c.instance_id, c.request, n.host
      FROM claims c
      LEFT JOIN compute_nodes n ON n.id = c.compute_node_id
     WHERE c.id = :claim_id
""")


def target(connection: sa.Connection, request: MoveRequest) -> ClaimRequest:
    """The claim request for the target. The same move always gives the same request.

    Raises :class:`ClaimNotFound` if there is no such source.
    """
    source_id = request.source_claim_id
    source = connection.execute(_SOURCE, {"claim_id": source_id}).one_or_none()
    if source is None:
        raise ClaimNotFound(f"there is no claim {source_id}", claim_id=str(source_id))
    extra_specs, requests, settings = request.extra_specs, request.requests, request.network_settings
    return ClaimRequest.model_validate(
        {
            "claim_id": request.claim_id,
            "instance_id": source.instance_id,
            "extra_specs": source.request["extra_specs"] if extra_specs is None else extra_specs,
            "requests": source.request["requests"] if requests is None else requests,
            "hosts": request.hosts,
            "avoid_hosts": [*request.avoid_hosts, *([source.host] if source.host else [])],
            "numa_cells": request.numa_cells,
            "network_settings": source.request.get("network_settings", []) if settings is None else settings,
            "project": source.request.get("project"),
        }
    )
