"""Take back a claim that an agent has devices for and that the database does not know, after a restore."""

from __future__ import annotations

import json

import sqlalchemy as sa

from portclaim.common.db import audit
from portclaim.common.db.sqlstate import as_errors
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.device_request import DeviceRequest
from portclaim.common.rpc.recovery_messages import Recovery
from portclaim.common.rpc.versions import to_send

_KINDS = sa.text("""
    SELECT d.address, p.dev_type, p.vendor_id, p.product_id
      FROM pci_devices d
      JOIN compute_nodes n ON n.id = d.compute_node_id
      JOIN pools p ON p.id = d.pool_id
     WHERE n.host = :host AND d.address = ANY(:addresses) AND d.status <> 'removed'
     ORDER BY p.dev_type, p.vendor_id, p.product_id, d.address
""")
_RECOVER = sa.text("""
    SELECT recover_claim(:claim_id, :instance_id, :host, :step, :request, :devices, :cause)
""")


def recover(connection: sa.Connection, wanted: Recovery) -> Claim:
    """Make the claim anew, as ``allocated``. Its request asks for devices of the kinds that it has.

    Raises :class:`UnknownHost`, and :class:`ClaimConflict` if the claim is known, or if another claim has one
    of the devices or its tree partner. Then nothing has changed.
    """
    claim = wanted.claim
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for address, *kind in connection.execute(_KINDS, {"host": wanted.host, "addresses": claim.addresses}):
        kinds.setdefault((kind[0], kind[1], kind[2]), []).append(address)
    requests = [
        DeviceRequest(
            count=len(addresses),
            spec=[{"dev_type": dev_type, "vendor_id": vendor_id, "product_id": product_id}],
        )
        for (dev_type, vendor_id, product_id), addresses in kinds.items()
    ]
    request = ClaimRequest(claim_id=claim.claim_id, instance_id=claim.instance_id, requests=requests)
    fields = to_send(request)[0]
    for one in ("claim_id", "wait"):
        fields.pop(one, None)
    index_of = {address: index for index, found in enumerate(kinds.values()) for address in found}
    facts = {
        "claim_id": claim.claim_id,
        "instance_id": claim.instance_id,
        "host": wanted.host,
        "step": max(claim.step, 1),
        "request": json.dumps(fields),
        "devices": json.dumps({address: index_of.get(address, 0) for address in claim.addresses}),
        "cause": f"recovered by {wanted.who}: {wanted.reason}",
    }
    with as_errors(claim_id=claim.claim_id, host=wanted.host):
        made = connection.scalar(_RECOVER, facts)
    place = f"{claim.claim_id} on {wanted.host}"
    audit.record_once(connection, wanted.who, "recover-claim", place, wanted.reason)
    return Claim.model_validate(made)
