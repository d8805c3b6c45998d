"""Steps that agents have to do, written in the transaction that wants them and kept until answered.

The writer sends a step right after its commit; a relay sends again whatever was not answered in time,
so that neither a crash between commit and send nor a lost message loses a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from common.rpc.messages import Step, StepDevice


class AddressedStep(NamedTuple):
    """A step and the host whose agent has to do it."""

    host: str
    step: Step


# A later step overtakes what its claim still had to do.
_PUT = sa.text("""
    WITH overtaken AS (
        DELETE FROM outbox WHERE claim_id = :claim_id AND step < :step
    )
    INSERT INTO outbox (claim_id, step, action, sends, send_after)
    VALUES (:claim_id, :step, :action, 1, now() + make_interval(secs => :resend_after))
""")

# Each silence doubles the wait for the next, up to 64 times the first.
_TAKE_DUE = sa.text("""
    UPDATE outbox o
       SET sends = o.sends + 1,
           send_after = now() + make_interval(secs => :resend_after * 2 ^ least(o.sends, 6))
      FROM (SELECT claim_id, step FROM outbox
             WHERE send_after <= now()
             ORDER BY send_after LIMIT :limit
               FOR UPDATE SKIP LOCKED) due
     WHERE (o.claim_id, o.step) = (due.claim_id, due.step)
    RETURNING o.claim_id
""")

_READ = sa.text("""
    SELECT n.host, o.claim_id, o.step, o.action, c.instance_id,
           d.address, d.dev_type, p.vendor_id, p.product_id, pf.address AS parent_address
      FROM outbox o
      JOIN claims c ON c.id = o.claim_id AND c.step = o.step
      JOIN compute_nodes n ON n.id = c.compute_node_id
      JOIN pci_devices d ON d.claim_id = o.claim_id
      JOIN pools p ON p.id = d.pool_id
      LEFT JOIN pci_devices pf ON pf.id = d.parent_id
     WHERE o.claim_id = ANY(:claim_ids)
     ORDER BY o.created_at, o.claim_id, d.id
""")


def put(connection: sa.Connection, claim_id: UUID, step: int, action: str, resend_after: float) -> None:
    """Add a step of a claim, which the caller sends once its transaction is committed."""
    connection.execute(
        _PUT, {"claim_id": claim_id, "step": step, "action": action, "resend_after": resend_after}
    )


def take_due(connection: sa.Connection, limit: int, resend_after: float) -> list[AddressedStep]:
    """Up to ``limit`` steps that nobody has answered in time; workers that ask at once share them."""
    due = connection.scalars(_TAKE_DUE, {"limit": limit, "resend_after": resend_after}).all()
    return read(connection, due) if due else []


def read(connection: sa.Connection, claim_ids: Sequence[UUID]) -> list[AddressedStep]:
    """The steps in hand of these claims, oldest first. A claim without one is left out."""
    steps: dict[UUID, AddressedStep] = {}
    for row in connection.execute(_READ, {"claim_ids": list(claim_ids)}).mappings():
        device = StepDevice.model_validate({name: row[name] for name in StepDevice.model_fields})
        if row["claim_id"] in steps:
            steps[row["claim_id"]].step.devices.append(device)
        else:
            fields = {name: row[name] for name in ("claim_id", "step", "action", "instance_id")}
            step = Step.model_validate(fields | {"devices": [device]})
            steps[row["claim_id"]] = AddressedStep(row["host"], step)
    return list(steps.values())
