"""Delete claims and events that ended long ago, in batches, so that no other transaction waits for a lock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from portclaim.common.db.transaction import in_transaction

# Claims are read in the order of their ids, so that this needs no index of its own. Locked rows are left for
# the next time.
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
    """Deletes claims that ended longer ago than ``older_than`` with their history, and device events as old.

    The id of a deleted claim may be used again. ``pruned`` counts the deleted claims. ``record`` is called
    once, in the first transaction that deletes something: it records the act of an operator.
    """

    def __init__(
        self,
        engine: sa.Engine,
        older_than: timedelta,
        size: int = 1000,
        record: Callable[[sa.Connection], None] | None = None,
    ) -> None:
        self.pruned = 0
        self._record = record
        self._engine = engine
        self._older_than = older_than
        self._size = size
        self._after: UUID | None = None

    def work(self) -> bool:
        """Prune one batch of each; answer whether there are more.

        After the last claim it starts at the first again.
        """
        batch = in_transaction(self._engine, self._prune_claims)
        self._is_recorded(batch.pruned)
        changes = in_transaction(self._engine, self._prune_device_events)
        self._is_recorded(changes)
        self.pruned += batch.pruned
        self._after = batch.last if batch.seen == self._size else None
        return self._after is not None or changes == self._size

    def _prune_claims(self, connection: sa.Connection) -> sa.Row[Any]:
        batch = connection.execute(_PRUNE, self._facts).one()
        if batch.pruned and self._record is not None:
            self._record(connection)
        return batch

    def _prune_device_events(self, connection: sa.Connection) -> int:
        changes = connection.execute(_PRUNE_DEVICE_EVENTS, self._facts).rowcount
        if changes and self._record is not None:
            self._record(connection)
        return changes

    @property
    def _facts(self) -> dict[str, object]:
        return {"after": self._after, "size": self._size, "older_than": self._older_than}

    def _is_recorded(self, deleted: int) -> None:
        """The transaction that deleted so much is committed: the next ones belong to the same act."""
        if deleted:
            self._record = None
