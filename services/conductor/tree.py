"""Lock the trees of a host, and update the statuses that follow from them.

The functions are in common/db/sql/trees.sql.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

# The PF's row is the lock of its tree; a device without a tree is its own lock. Always in the order of ids,
# so that transactions cannot deadlock.
_LOCK_HOST = sa.text("""
    SELECT id FROM pci_devices
     WHERE compute_node_id = :compute_node_id AND parent_id IS NULL
     ORDER BY id FOR UPDATE
""")

_UPDATE_STATUSES = sa.text("SELECT update_tree_statuses(:port_ids)")
_REFRESH_PORT_POOLS = sa.text("SELECT refresh_port_pools(:port_ids)")


def lock_host(connection: sa.Connection, compute_node_id: int) -> Sequence[int]:
    """Lock all trees of a host; answer the ids of their ports."""
    return connection.scalars(_LOCK_HOST, {"compute_node_id": compute_node_id}).all()


def update_statuses(connection: sa.Connection, port_ids: Sequence[int]) -> None:
    """Derive the status of every device of these locked trees that no claim holds."""
    connection.execute(_UPDATE_STATUSES, {"port_ids": list(port_ids)})


def refresh_port_pools(connection: sa.Connection, port_ids: Collection[int]) -> None:
    """Count the VFs of these devices again. They were ports when they were locked."""
    connection.execute(_REFRESH_PORT_POOLS, {"port_ids": list(port_ids)})
