"""A claim's life after the claim: what an agent's answer to a step changes."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from common.errors import ClaimNotFound, InvalidRequest, StaleStep
from common.rpc.messages import Holding, StepDevice, StepResult
from services.conductor import inventory, tree

_LOCK = sa.text("""
    SELECT status, step FROM claims WHERE id = :claim_id AND compute_node_id = :compute_node_id FOR UPDATE
""")

# What an agent is to do while a claim has this status; any other has its answer. Not read from the outbox
# together with the lock: what was answered while the lock was waited for would still be seen there.
_AWAITED = {"claimed": "attach", "releasing": "detach"}

_ANSWERED = sa.text("DELETE FROM outbox WHERE claim_id = :claim_id AND step = :step")

_ALLOCATE = sa.text("UPDATE pci_devices SET status = 'allocated' WHERE claim_id = :claim_id")

# Free, but not yet available: that is for tree.settle to say.
_FREE = sa.text("UPDATE pci_devices SET status = 'unavailable', claim_id = NULL WHERE claim_id = :claim_id")

# What the host did not list was kept because it was in use; the next report has to decide anew.
_LOOK_AGAIN = sa.text("""
    UPDATE compute_nodes SET inventory_digest = NULL
     WHERE id = :compute_node_id
       AND EXISTS (SELECT FROM pci_devices
                    WHERE NOT present AND (id = ANY(:port_ids) OR parent_id = ANY(:port_ids)))
""")

_END_HOLD = sa.text("""
    UPDATE claim_devices SET held_until = now() WHERE claim_id = :claim_id AND held_until IS NULL
""")

_MOVE = sa.text("""
    WITH moved AS (
        UPDATE claims SET status = :to_status, reason = :reason, updated_at = now() WHERE id = :claim_id
    )
    INSERT INTO claim_events (claim_id, from_status, to_status, cause)
    VALUES (:claim_id, :from_status, :to_status, :cause)
""")

_HOLDINGS = sa.text("""
    SELECT c.id AS claim_id, c.instance_id, c.status, c.step,
           jsonb_agg(jsonb_build_object(
               'address', d.address, 'dev_type', d.dev_type, 'vendor_id', p.vendor_id,
               'product_id', p.product_id, 'parent_address', pf.address) ORDER BY d.id) AS devices
      FROM claims c
      JOIN pci_devices d ON d.claim_id = c.id
      JOIN pools p ON p.id = d.pool_id
      LEFT JOIN pci_devices pf ON pf.id = d.parent_id
     WHERE c.compute_node_id = :compute_node_id AND c.live
     GROUP BY c.id
     ORDER BY c.created_at, c.id
""")


def step_done(connection: sa.Connection, result: StepResult) -> None:
    """Move the claim as the answer says. The same answer again changes nothing.

    An attach that failed frees the devices at once: the agent has undone what it did. A detach that
    failed keeps them, and its step is sent again.
    Raises :class:`ClaimNotFound`, :class:`StaleStep`, :class:`InvalidRequest` for a step not sent yet.
    """
    node_id = inventory.node_of(connection, result.host, result.agent_id)
    key = {"claim_id": result.claim_id}
    claim = connection.execute(_LOCK, key | {"compute_node_id": node_id}).one_or_none()
    if claim is None:
        raise ClaimNotFound(f"no claim {result.claim_id} on {result.host}", claim_id=str(result.claim_id))
    if result.step < claim.step:
        raise StaleStep(
            f"step {result.step} of claim {result.claim_id} was overtaken by step {claim.step}",
            claim_id=str(result.claim_id),
            step=claim.step,
        )
    if result.step > claim.step:
        raise InvalidRequest(f"claim {result.claim_id} has no step {result.step}, only {claim.step}")
    awaited = _AWAITED.get(claim.status)
    if awaited is None:
        return

    if awaited == "detach" and result.outcome == "failed":
        _move(connection, result, claim.status, "releasing", "detach failed; it will be tried again")
        return
    connection.execute(_ANSWERED, key | {"step": result.step})
    port_ids = tree.lock_claim(connection, result.claim_id)
    if awaited == "attach" and result.outcome == "done":
        connection.execute(_ALLOCATE, key)
        _move(connection, result, claim.status, "allocated", "attached")
    else:
        connection.execute(_FREE, key)
        connection.execute(_END_HOLD, key)
        ended = "failed" if awaited == "attach" else "released"
        _move(connection, result, claim.status, ended, f"{awaited} {result.outcome}")
        connection.execute(_LOOK_AGAIN, {"compute_node_id": node_id, "port_ids": port_ids})
    tree.settle(connection, port_ids)


def holdings(connection: sa.Connection, host: str, agent_id: object) -> list[Holding]:
    """What the agent of ``host`` should hold now. Raises ``UnknownHost``, ``HostOwnedByAnotherAgent``."""
    node_id = inventory.node_of(connection, host, agent_id)
    rows = connection.execute(_HOLDINGS, {"compute_node_id": node_id}).mappings()
    return [
        Holding.model_validate({**row, "devices": [StepDevice.model_validate(d) for d in row["devices"]]})
        for row in rows
    ]


def _move(
    connection: sa.Connection, result: StepResult, from_status: str, to_status: str, cause: str
) -> None:
    facts: dict[str, Any] = {"claim_id": result.claim_id, "from_status": from_status, "to_status": to_status}
    connection.execute(_MOVE, facts | {"cause": cause, "reason": result.reason})
