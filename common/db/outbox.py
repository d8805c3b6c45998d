"""Steps that agents have to do, written in the transaction that wants them and kept until answered.

The writer sends a step right after its commit; a relay sends again whatever was not answered in time,
so that neither a crash between commit and send nor a lost message loses a step.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.rpc.messages import Step, StepDevice

LOG = logging.getLogger(__name__)


class AddressedStep(NamedTuple):
    """A step and the host whose agent has to do it."""

    host: str
    step: Step


CHANNEL = "portclaim_outbox"
"""Notified when a step has become due that nobody sends at once."""

# Each silence doubles the wait for the next, up to 64 times the first. What has been sent as often as it may
# be is parked: due at no time, until somebody says so.
_TAKE_DUE = sa.text("""
    UPDATE outbox o
       SET sends = o.sends + 1,
           send_after = CASE WHEN o.sends + 1 >= :max_sends THEN 'infinity'
                             ELSE now() + make_interval(secs => :resend_after * 2 ^ least(o.sends, 6)) END
      FROM (SELECT claim_id, step FROM outbox
             WHERE send_after <= now()
             ORDER BY send_after LIMIT :limit
               FOR UPDATE SKIP LOCKED) due
     WHERE (o.claim_id, o.step) = (due.claim_id, due.step)
    RETURNING o.claim_id, o.sends, o.send_after = 'infinity' AS is_parked
""")

_RETRY = sa.text("""
    WITH again AS (
        UPDATE outbox o SET sends = 1, send_after = now()
          FROM claims c
          JOIN compute_nodes n ON n.id = c.compute_node_id
         WHERE c.id = o.claim_id
           AND CASE WHEN cast(:claim_ids AS uuid[]) IS NULL THEN o.send_after = 'infinity'
                    ELSE o.claim_id = ANY(:claim_ids) END
           AND (cast(:host AS text) IS NULL OR n.host = :host)
        RETURNING o.claim_id
    )
    SELECT count(*), pg_notify(:channel, '') FROM again
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


def take_due(
    connection: sa.Connection, limit: int, resend_after: float, max_sends: int
) -> list[AddressedStep]:
    """Up to ``limit`` steps that nobody has answered in time; workers that ask at once share them.

    Those that are taken for the ``max_sends``-th time are parked.
    """
    facts = {"limit": limit, "resend_after": resend_after, "max_sends": max_sends}
    due = connection.execute(_TAKE_DUE, facts).all()
    for row in due:
        if row.is_parked:
            LOG.error("the step of claim %s is sent for the last time: it was sent %s times", *row[:2])
    return read(connection, [row.claim_id for row in due]) if due else []


def retry(connection: sa.Connection, claim_ids: Sequence[UUID] | None, host: str | None) -> int:
    """Have steps sent now as if for the first time; answer how many those are.

    Those of these claims; or, without any, those that are parked. ``host``: only its own.
    """
    facts = {"claim_ids": None if claim_ids is None else list(claim_ids), "host": host, "channel": CHANNEL}
    count: int = connection.scalar(_RETRY, facts) or 0
    return count


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
