"""Read what callers ask for: one claim, or devices as operators see them."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from common.errors import ClaimNotFound
from common.rpc.messages import Claim, ClaimedDevice, Device, DeviceFilter, Devices

# What a live claim holds is in pci_devices, what an ended one held only in claim_devices.
_CLAIM = sa.text("""
    SELECT c.id AS claim_id, c.instance_id, n.host, c.status, c.reason, c.step,
           to_char(c.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at,
           to_char(c.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS updated_at,
           jsonb_agg(jsonb_build_object(
               'address', d.address, 'dev_type', p.dev_type, 'vendor_id', p.vendor_id,
               'product_id', p.product_id, 'numa_node', d.numa_node, 'parent_address', pf.address,
               'status', d.status, 'request_index', cd.request_index)
               ORDER BY cd.request_index, d.id) AS devices
      FROM claims c
      JOIN compute_nodes n ON n.id = c.compute_node_id
      JOIN claim_devices cd ON cd.claim_id = c.id
      JOIN pci_devices d ON d.id = cd.device_id
      JOIN pools p ON p.id = cd.pool_id
      LEFT JOIN pci_devices pf ON pf.id = d.parent_id
     WHERE c.id = :claim_id
     GROUP BY c.id, n.host
""")

_DEVICES = sa.text("""
    SELECT host, port, address, dev_type, vendor_id, product_id, numa_node, status, effective_status,
           reason, claim_id, instance_id, tags
      FROM pf_vf_tree
     WHERE (cast(:host AS text) IS NULL OR host = :host)
       AND (cast(:dev_type AS text) IS NULL OR dev_type = :dev_type)
       AND (cast(:claim_id AS uuid) IS NULL OR claim_id = :claim_id)
       AND CASE WHEN cast(:status AS text) IS NULL THEN effective_status <> 'removed'
                ELSE effective_status = :status END
     ORDER BY host, port, dev_type = 'type-VF', address
     LIMIT :limit + 1
""")


def claim(connection: sa.Connection, claim_id: UUID) -> Claim:
    """The claim as it stands. Raises :class:`ClaimNotFound`."""
    row = connection.execute(_CLAIM, {"claim_id": claim_id}).mappings().one_or_none()
    if row is None:
        raise ClaimNotFound(f"there is no claim {claim_id}", claim_id=str(claim_id))
    devices = [ClaimedDevice.model_validate(device) for device in row["devices"]]
    return Claim.model_validate({**row, "devices": devices})


def devices(connection: sa.Connection, wanted: DeviceFilter) -> Devices:
    """The devices that fit the filter; removed ones only if asked for by that status."""
    rows = connection.execute(_DEVICES, wanted.model_dump()).mappings().all()
    shown = [Device.model_validate(dict(row)) for row in rows[: wanted.limit]]
    return Devices(devices=shown, more=len(rows) > wanted.limit)
