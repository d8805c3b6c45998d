"""Keep the sums of each host up to date. Claims that no host can serve are refused by them.

The sums and the function are in common/db/sql/room.sql.
"""

from __future__ import annotations

import sqlalchemy as sa

from portclaim.common.db.transaction import in_transaction

_COUNT_HOSTS = sa.text("SELECT count_hosts(:limit)")

_BATCH = 200


def count_hosts(engine: sa.Engine) -> int:
    """Count the hosts that have changed; answer how many. A host that a transaction is changing waits.

    Raises :class:`ServiceUnavailable`.
    """
    counted, found = 0, _BATCH
    while found == _BATCH:
        found = in_transaction(engine, _count_batch)
        counted += found
    return counted


def _count_batch(connection: sa.Connection) -> int:
    found: int = connection.scalar(_COUNT_HOSTS, {"limit": _BATCH})
    return found
