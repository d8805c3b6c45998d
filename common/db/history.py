"""Forget what ended long ago: a batch at a time, so that nobody waits for a lock."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.db.transaction import in_transaction

# Claims are passed by in the order of their ids, so that no index has to be kept for this alone. What
# somebody has locked is left for the next time.
_PRUNE = sa.text("""
    WITH batch AS (
        SELECT id, live, status, updated_at FROM claims
         WHERE cast(:after AS uuid) IS NULL OR id > :after
         ORDER BY id LIMIT :size
    ), old AS (
        SELECT id FROM claims
         WHERE id IN (SELECT id FROM batch
                       WHERE NOT live AND status <> 'waiting'
                         AND updated_at < now() - cast(:older_than AS interval))
           FOR UPDATE SKIP LOCKED
    ), events AS (
        DELETE FROM claim_events WHERE claim_id IN (SELECT id FROM old)
    ), devices AS (
        DELETE FROM claim_devices WHERE claim_id IN (SELECT id FROM old)
    ), gone AS (
        DELETE FROM claims WHERE id IN (SELECT id FROM old) RETURNING id
    )
    SELECT (SELECT id FROM batch ORDER BY id DESC LIMIT 1) AS last,
           (SELECT count(*) FROM batch) AS seen, (SELECT count(*) FROM gone) AS pruned
""")

_PRUNE_DEVICE_EVENTS = sa.text("""
    DELETE FROM device_events
     WHERE id IN (SELECT id FROM (SELECT id, at FROM device_events ORDER BY id LIMIT :size
                                     FOR UPDATE SKIP LOCKED) oldest
                   WHERE at < now() - cast(:older_than AS interval))
""")


class Pruning:
    """Deletes claims that ended longer ago than ``older_than``, with their events and holds, and as old
    changes of devices.

    A claim's id, once forgotten, may be used anew. ``pruned`` counts what was deleted so far.
    """

    def __init__(self, engine: sa.Engine, older_than: timedelta, size: int = 1000) -> None:
        self.pruned = 0
        self._engine = engine
        self._older_than = older_than
        self._size = size
        self._after: UUID | None = None

    def work(self) -> bool:
        """Look at one batch of each; are there more? After the last claim it begins anew."""
        facts = {"after": self._after, "size": self._size, "older_than": self._older_than}
        batch = in_transaction(self._engine, lambda connection: connection.execute(_PRUNE, facts).one())
        changes = in_transaction(
            self._engine, lambda connection: connection.execute(_PRUNE_DEVICE_EVENTS, facts).rowcount
        )
        self.pruned += batch.pruned
        self._after = batch.last if batch.seen == self._size else None
        return self._after is not None or changes == self._size
