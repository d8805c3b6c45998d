"""Release claims that were not attached in time.

An agent that has not answered may have attached the devices, or may still do so. So an expired claim is
detached like a released one, and its devices are free only after the agent has confirmed that.
"""

from __future__ import annotations

import logging
from uuid import UUID

import sqlalchemy as sa

LOG = logging.getLogger(__name__)

_BATCH = 100

# The outbox has every claim whose attach is not answered. A claim whose row is locked, by an answer or a
# release, is skipped: the next pass looks at it again.
_EXPIRE = sa.text("""
    WITH due AS (
        SELECT c.id, c.step + 1 AS step
          FROM outbox o
          JOIN claims c ON c.id = o.claim_id
         WHERE o.action = 'attach' AND c.status = 'claimed'
           AND c.created_at < now() - make_interval(secs => :after)
         ORDER BY c.created_at
         LIMIT :limit
           FOR UPDATE OF c SKIP LOCKED
    ), begun AS (
        UPDATE claims c
           SET status = 'releasing', step = due.step, expiry_reason = :why, reason = :why, updated_at = now()
          FROM due
         WHERE c.id = due.id
        RETURNING c.id, c.step
    ), superseded AS (
        DELETE FROM outbox o USING begun WHERE o.claim_id = begun.id AND o.step < begun.step
    ), put AS (
        INSERT INTO outbox (claim_id, step, action) SELECT id, step, 'detach' FROM begun
    ), recorded AS (
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        SELECT id, 'claimed', 'releasing', :why FROM begun
    )
    SELECT id FROM begun
""")


def expire(connection: sa.Connection, after: float) -> list[UUID]:
    """Begin to release claims that have waited longer than ``after`` seconds for their attach, at most one
    batch.

    Their detach steps are due at once. Answers the ids of these claims.
    """
    facts = {"after": after, "limit": _BATCH, "why": f"not attached within {after:g} s"}
    expired = list(connection.scalars(_EXPIRE, facts))
    for claim_id in expired:
        LOG.warning("claim %s expires: %s", claim_id, facts["why"])
    return expired
