"""The outbox: steps that agents have to do, each written in the transaction that needs it.

The writer sends a step right after its commit. A relay sends it again until the agent answers. So no step is
lost when a service crashes between commit and send, or when a message is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.metrics.catalogue import STEPS_PARKED
from portclaim.common.rpc.agent_messages import Step, StepDevice

LOG = logging.getLogger(__name__)


class AddressedStep(NamedTuple):
    """A step and the host whose agent must do it."""

    host: str
    step: Step


CHANNEL = "portclaim_outbox"
"""Notified when a step is due that its writer does not send itself."""

# The wait doubles with each send, up to 64 times the first wait. After the last send the step is parked: it
# is not due again until an operator retries it.
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
    SELECT n.host, o.claim_id, o.step, o.action, c.instance_id, o.traceparent,
           d.address, d.dev_type, p.vendor_id, p.product_id, pf.address AS parent_address,
           CASE WHEN o.action IN ('prepare', 'attach') THEN cd.network_settings END AS network_settings
      FROM outbox o
      JOIN claims c ON c.id = o.claim_id AND c.step = o.step
      JOIN compute_nodes n ON n.id = c.compute_node_id
      JOIN pci_devices d ON d.claim_id = o.claim_id
      JOIN pools p ON p.id = d.pool_id
      LEFT JOIN claim_devices cd ON (cd.claim_id, cd.device_id) = (o.claim_id, d.id)
      LEFT JOIN pci_devices pf ON pf.id = d.parent_id
     WHERE o.claim_id = ANY(:claim_ids)
       AND (o.action <> 'unplug' OR coalesce(lower(p.tags ->> 'live_migratable'), '') <> 'true')
     ORDER BY o.created_at, o.claim_id, d.id
""")


def take_due(
    connection: sa.Connection, limit: int, resend_after: float, max_sends: int
) -> list[AddressedStep]:
    """Up to ``limit`` steps that are due. Workers that ask at the same time get different steps.

    A step that is taken for the ``max_sends``-th time is parked.
    """
    facts = {"limit": limit, "resend_after": resend_after, "max_sends": max_sends}
    due = connection.execute(_TAKE_DUE, facts).all()
    for row in due:
        if row.is_parked:
            STEPS_PARKED.count()
            LOG.error("the step of claim %s is parked: it was sent %s times without an answer", *row[:2])
    return read(connection, [row.claim_id for row in due]) if due else []


def retry(connection: sa.Connection, claim_ids: Sequence[UUID] | None, host: str | None) -> int:
    """Make steps due now, as if they had never been sent; answer how many.

    ``claim_ids``: the steps of these claims; None: all parked steps. ``host``: only steps of this host.
    """
    facts = {"claim_ids": None if claim_ids is None else list(claim_ids), "host": host, "channel": CHANNEL}
    count: int = connection.scalar(_RETRY, facts) or 0
    return count


def read(connection: sa.Connection, claim_ids: Sequence[UUID]) -> list[AddressedStep]:
    """The unanswered steps of these claims, oldest first. Claims without one are left out."""
    steps: dict[UUID, AddressedStep] = {}
    for row in connection.execute(_READ, {"claim_ids": list(claim_ids)}).mappings():
        device = StepDevice.model_validate({name: row[name] for name in StepDevice.model_fields})
        if row["claim_id"] in steps:
            steps[row["claim_id"]].step.devices.append(device)
        else:
            fields = {name: row[name] for name in ("claim_id", "step", "action", "instance_id")}
            step = Step.model_validate(fields | {"devices": [device]})
            steps[row["claim_id"]] = AddressedStep(row["host"], step.traced(row["traceparent"]))
    return list(steps.values())
