"""The status of devices that nobody holds: it follows from their own facts and their tree partner's."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

# The PF's row is the lock of its tree, and the row of a device without a tree is its own. Always in
# the order of ids, so that two transactions that want the same two trees meet at the first.
_LOCK_HOST = sa.text("""
    SELECT id FROM pci_devices
     WHERE compute_node_id = :compute_node_id AND parent_id IS NULL
     ORDER BY id FOR UPDATE
""")

_LOCK_CLAIM = sa.text("""
    SELECT id FROM pci_devices
     WHERE id IN (SELECT coalesce(parent_id, id) FROM pci_devices WHERE claim_id = :claim_id)
     ORDER BY id FOR UPDATE
""")

# Nova's rules: a claimed partner makes unclaimable, an allocated one unavailable; and a PF that was
# made unavailable stays so until all of its VFs are free.
_SETTLE = sa.text("""
    UPDATE pci_devices d
       SET status = settled.status
      FROM (SELECT d.id,
                   CASE WHEN NOT d.offered THEN 'unavailable'
                        WHEN pf.status = 'claimed' THEN 'unclaimable'
                        WHEN pf.status = 'allocated' THEN 'unavailable'
                        WHEN vfs.allocated OR vfs.held AND d.status = 'unavailable' THEN 'unavailable'
                        WHEN vfs.held THEN 'unclaimable'
                        WHEN d.unusable_reason IS NOT NULL OR NOT d.present THEN 'unavailable'
                        ELSE 'available' END AS status
              FROM pci_devices d
              LEFT JOIN pci_devices pf ON pf.id = d.parent_id
              LEFT JOIN LATERAL (
                   SELECT count(*) > 0 AS held, bool_or(vf.status = 'allocated') AS allocated
                     FROM pci_devices vf
                    WHERE d.dev_type = 'type-PF' AND vf.parent_id = d.id AND NOT vf.unheld
                   ) vfs ON true
             WHERE (d.id = ANY(:port_ids) OR d.parent_id = ANY(:port_ids))
               AND d.unheld AND d.status <> 'removed'
           ) settled
     WHERE d.id = settled.id AND d.status <> settled.status
""")

_COUNT = sa.text("SELECT count_ports(:port_ids)")


def lock_host(connection: sa.Connection, compute_node_id: int) -> Sequence[int]:
    """Lock all trees of a host; answer the ids of their ports."""
    return connection.scalars(_LOCK_HOST, {"compute_node_id": compute_node_id}).all()


def lock_claim(connection: sa.Connection, claim_id: object) -> Sequence[int]:
    """Lock the trees in which a claim holds devices; answer the ids of their ports."""
    return connection.scalars(_LOCK_CLAIM, {"claim_id": claim_id}).all()


def settle(connection: sa.Connection, port_ids: Sequence[int]) -> None:
    """Give every device of these trees that nobody holds the status that follows. The trees are locked."""
    connection.execute(_SETTLE, {"port_ids": list(port_ids)})
    connection.execute(_COUNT, {"port_ids": list(port_ids)})
