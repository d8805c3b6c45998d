"""The trees of a host: lock them, and let the devices that nobody holds follow."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

# The PF's row is the lock of its tree, and the row of a device without a tree is its own. Always in
# the order of ids, so that two transactions that want the same two trees meet at the first.
_LOCK_HOST = sa.text("""
    SELECT id FROM pci_devices
     WHERE compute_node_id = :compute_node_id AND parent_id IS NULL
     ORDER BY id FOR UPDATE
""")

_SETTLE = sa.text("SELECT settle_trees(:port_ids)")
_COUNT = sa.text("SELECT count_ports(:port_ids)")


def lock_host(connection: sa.Connection, compute_node_id: int) -> Sequence[int]:
    """Lock all trees of a host; answer the ids of their ports."""
    return connection.scalars(_LOCK_HOST, {"compute_node_id": compute_node_id}).all()


def settle(connection: sa.Connection, port_ids: Sequence[int]) -> None:
    """Give every device of these trees that nobody holds the status that follows. The trees are locked."""
    connection.execute(_SETTLE, {"port_ids": list(port_ids)})


def count(connection: sa.Connection, port_ids: Collection[int]) -> None:
    """Count anew which VFs are below these devices, that were ports when they were locked."""
    connection.execute(_COUNT, {"port_ids": list(port_ids)})
