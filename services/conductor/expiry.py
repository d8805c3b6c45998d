"""Release claims that were not prepared in time, or whose guest did not come in time.

An agent that has not answered may have the devices prepared or attached, or may still do so. So an expired
claim is detached like a released one, and its devices are free only after the agent has confirmed that.
"""

from __future__ import annotations

import logging
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.metrics.catalogue import CLAIMS_EXPIRED

LOG = logging.getLogger(__name__)

_BATCH = 100

# A claim whose row is locked, by an answer or a release, is skipped: the next pass looks at it again.
_EXPIRE = """
    WITH due AS (
        {due}
         LIMIT :limit
           FOR UPDATE OF c SKIP LOCKED
    ), begun AS (
        UPDATE claims c
           SET status = 'releasing', step = due.step, expiry_reason = due.why, reason = due.why,
               updated_at = now()
          FROM due
         WHERE c.id = due.id
        RETURNING c.id, c.step, due.status, due.why
    ), superseded AS (
        DELETE FROM outbox o USING begun WHERE o.claim_id = begun.id AND o.step < begun.step
    ), put AS (
        INSERT INTO outbox (claim_id, step, action) SELECT id, step, 'detach' FROM begun
    ), recorded AS (
        INSERT INTO claim_events (claim_id, from_status, to_status, cause)
        SELECT id, status, 'releasing', why FROM begun
    )
    SELECT id, why FROM begun
"""

# The outbox has every claim that is not prepared.
_NOT_PREPARED = sa.text(
    _EXPIRE.format(
        due="""
        SELECT c.id, c.step + 1 AS step, c.status, cast(:why AS text) AS why
          FROM outbox o
          JOIN claims c ON c.id = o.claim_id
         WHERE c.status = 'claimed' AND c.created_at < now() - make_interval(secs => :after)
         ORDER BY c.created_at"""
    )
)

_WITHOUT_GUEST = sa.text(
    _EXPIRE.format(
        due="""
        SELECT c.id, c.step + 1 AS step, c.status,
               format('its instance did not get the devices within %s s of their preparation',
                      round(extract(epoch FROM c.guest_deadline - c.prepared_at))) AS why
          FROM claims c
         WHERE c.status = 'prepared' AND c.guest_deadline < now()
         ORDER BY c.guest_deadline"""
    )
)


def expire(connection: sa.Connection, after: float | None) -> list[UUID]:
    """Begin to release the claims that are due: at most one batch of each kind. Answers their ids.

    Due are claims that were not prepared within ``after`` seconds (None: they have any time), and prepared
    claims that are past their deadline. Their detach steps are due at once.
    """
    rows = list(connection.execute(_WITHOUT_GUEST, {"limit": _BATCH}))
    if after is not None:
        facts = {"after": after, "limit": _BATCH, "why": f"not prepared within {after:g} s"}
        rows += connection.execute(_NOT_PREPARED, facts)
    CLAIMS_EXPIRED.count(by=len(rows))
    for claim_id, why in rows:
        LOG.warning("claim %s expires: %s", claim_id, why)
    return [claim_id for claim_id, _ in rows]
