"""Apply an agent's inventory report, in one transaction with a fixed number of statements."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from portclaim.common.errors import HostOwnedByAnotherAgent
from portclaim.common.rpc.agent_messages import InventoryAnswer, InventoryReport
from portclaim.services.conductor import tree

_HEARTBEAT = sa.text("""
    UPDATE compute_nodes SET last_seen = now()
     WHERE host = :host AND agent_id = :agent_id AND inventory_digest = :digest
    RETURNING id
""")

_TAKE_HOST = sa.text("""
    INSERT INTO compute_nodes AS n (host, agent_id) VALUES (:host, :agent_id)
        ON CONFLICT (host) DO UPDATE SET agent_id = EXCLUDED.agent_id, last_seen = now()
     WHERE n.agent_id = EXCLUDED.agent_id
        OR n.last_seen < now() - make_interval(secs => :agent_down_after)
    RETURNING id
""")

# A VF cannot have a parent that a claim holds as something other than a PF. Such a VF counts as not reported
# until the parent is free: then a full report is asked for.
_REPORTED = """
    reported AS (
        SELECT r.*
          FROM jsonb_to_recordset(:devices) AS r (
               address text, dev_type text, vendor_id text, product_id text, numa_node integer,
               parent_address text, offered boolean, unusable_reason text, tags jsonb, attributes jsonb)
          LEFT JOIN pci_devices parent
            ON parent.compute_node_id = :compute_node_id AND parent.address = r.parent_address
           AND parent.dev_type <> 'type-PF' AND NOT parent.unheld
         WHERE parent.id IS NULL
    )
"""


def _of_report(sql: str, **parts: str) -> sa.TextClause:
    """A statement that begins with the reported devices as the table ``reported``."""
    statement = sa.text("WITH " + _REPORTED + sql.format(**parts))
    return statement.bindparams(sa.bindparam("devices", type_=JSONB))


# Ordered, so that two hosts that report the same new pools cannot deadlock.
_ADD_POOLS = _of_report("""
    INSERT INTO pools (dev_type, vendor_id, product_id, tags)
    SELECT DISTINCT dev_type, vendor_id, product_id, tags FROM reported
     ORDER BY dev_type, vendor_id, product_id, tags
        ON CONFLICT DO NOTHING
""")

# A report may change a PF into another type and give its VFs another parent. The tree must be right at the
# end.
_DEFER_TREE_RULE = sa.text("SET CONSTRAINTS parent_is_a_pf_of_the_same_host DEFERRED")

# Devices that the report does not list. Held devices are never removed. Nor are the VFs of a held PF, which
# do not exist on the host while a guest has the PF, or of a PF that its agent reports as unusable.
_MARK_MISSING = _of_report("""
    , missing AS (
        SELECT d.id,
               NOT d.unheld
                  OR NOT coalesce(pf.unheld, true)
                  OR (reported_pf.dev_type = 'type-PF' AND reported_pf.unusable_reason IS NOT NULL)
                  OR EXISTS (SELECT FROM pci_devices vf WHERE vf.parent_id = d.id AND NOT vf.unheld) AS stays
          FROM pci_devices d
          LEFT JOIN pci_devices pf ON pf.id = d.parent_id
          LEFT JOIN reported reported_pf ON reported_pf.address = pf.address
         WHERE d.compute_node_id = :compute_node_id
           AND d.status <> 'removed'
           AND NOT EXISTS (SELECT FROM reported r WHERE r.address = d.address)
    )
    UPDATE pci_devices d
       SET present = false,
           status = CASE WHEN m.stays THEN d.status ELSE 'removed' END
      FROM missing m
     WHERE d.id = m.id AND (d.present OR NOT m.stays)
""")

# The parent, pool and type of a held device do not change while it is held. If the report says otherwise, the
# device counts as not present: once it is free, it is not handed out, and a full report is asked for.
_UPSERT = """
    INSERT INTO pci_devices AS d (compute_node_id, parent_id, pool_id, numa_node, offered, present, address,
                                  dev_type, status, drained_reason, reserved_for, unusable_reason, attributes)
    SELECT :compute_node_id, pf.id, p.id, r.numa_node, r.offered, true,
           r.address, r.dev_type, 'unavailable', pf.drained_reason, pf.reserved_for, r.unusable_reason,
           r.attributes
      FROM reported r
      JOIN pools p USING (dev_type, vendor_id, product_id, tags)
      LEFT JOIN pci_devices pf ON pf.compute_node_id = :compute_node_id AND pf.address = r.parent_address
     WHERE {which}
        ON CONFLICT (compute_node_id, address) DO UPDATE
       SET parent_id = CASE WHEN {free} THEN EXCLUDED.parent_id ELSE d.parent_id END,
           pool_id = CASE WHEN {free} THEN EXCLUDED.pool_id ELSE d.pool_id END,
           dev_type = CASE WHEN {free} THEN EXCLUDED.dev_type ELSE d.dev_type END,
           status = CASE WHEN d.status = 'removed' THEN EXCLUDED.status ELSE d.status END,
           numa_node = EXCLUDED.numa_node,
           offered = EXCLUDED.offered,
           present = {free} OR (d.parent_id, d.pool_id, d.dev_type)
                               IS NOT DISTINCT FROM (EXCLUDED.parent_id, EXCLUDED.pool_id, EXCLUDED.dev_type),
           drained_reason = {drained_reason},
           reserved_for = {reserved_for},
           unusable_reason = EXCLUDED.unusable_reason,
           attributes = {attributes}
     WHERE d.status = 'removed'
        OR (d.parent_id, d.pool_id, d.dev_type, d.numa_node, d.offered, d.present, d.unusable_reason,
            d.attributes)
           IS DISTINCT FROM
           (EXCLUDED.parent_id, EXCLUDED.pool_id, EXCLUDED.dev_type, EXCLUDED.numa_node, EXCLUDED.offered,
            EXCLUDED.present, EXCLUDED.unusable_reason, {attributes})
"""
# A host does not see the MAC of a PF that is prepared for an instance: such a PF has no network interface.
_ATTRIBUTES = """
    CASE WHEN d.unheld OR EXCLUDED.attributes ->> 'mac' IS NOT NULL THEN EXCLUDED.attributes
         ELSE EXCLUDED.attributes || jsonb_strip_nulls(jsonb_build_object('mac', d.attributes -> 'mac')) END
"""
_FREE = """
    (d.unheld AND NOT EXISTS (SELECT FROM pci_devices vf WHERE vf.parent_id = d.id AND NOT vf.unheld))
"""
_UPSERT_PORTS = _of_report(
    _UPSERT,
    free=_FREE,
    attributes=_ATTRIBUTES,
    which="r.dev_type <> 'type-VF'",
    drained_reason="d.drained_reason",
    reserved_for="d.reserved_for",
)
# A VF takes over whether the port of its new parent is drained or reserved.
_UPSERT_VFS = _of_report(
    _UPSERT,
    free=_FREE,
    attributes=_ATTRIBUTES,
    which="r.dev_type = 'type-VF'",
    drained_reason=f"CASE WHEN {_FREE} THEN EXCLUDED.drained_reason ELSE d.drained_reason END",
    reserved_for=f"CASE WHEN {_FREE} THEN EXCLUDED.reserved_for ELSE d.reserved_for END",
)

_COUNT_VFS = sa.text("""
    UPDATE pci_devices port SET vfs = counted.vfs
      FROM (SELECT port.id, count(vf.id) AS vfs
              FROM pci_devices port
              LEFT JOIN pci_devices vf ON vf.parent_id = port.id AND vf.status <> 'removed'
             WHERE port.compute_node_id = :compute_node_id AND (port.dev_type = 'type-PF' OR port.vfs > 0)
             GROUP BY port.id) counted
     WHERE port.id = counted.id AND port.vfs <> counted.vfs
""")

_RECORD_REPORT = sa.text("""
    UPDATE compute_nodes
       SET inventory_digest = :digest, numa_cells = :numa_cells, inventoried_at = now()
     WHERE id = :compute_node_id
""").bindparams(sa.bindparam("numa_cells", type_=JSONB))


def apply(connection: sa.Connection, report: InventoryReport, agent_down_after: float) -> InventoryAnswer:
    """Make the database agree with the report. An unchanged report writes nothing but ``last_seen``.

    Raises :class:`HostOwnedByAnotherAgent` while another agent of this host is alive.
    """
    agent = {"host": report.host, "agent_id": report.agent_id}
    if connection.scalar(_HEARTBEAT, agent | {"digest": report.digest}) is not None:
        return InventoryAnswer(resend=False)
    node_id = connection.scalar(_TAKE_HOST, agent | {"agent_down_after": agent_down_after})
    if node_id is None:
        raise _owned_by_another(report.host)
    if report.devices is None:
        return InventoryAnswer(resend=True)

    facts: dict[str, Any] = {
        "compute_node_id": node_id,
        "devices": [device.model_dump() for device in report.devices],
    }
    were_ports = tree.lock_host(connection, node_id)
    for statement in (_ADD_POOLS, _DEFER_TREE_RULE, _MARK_MISSING, _UPSERT_PORTS, _UPSERT_VFS, _COUNT_VFS):
        connection.execute(statement, facts)
    are_ports = tree.lock_host(connection, node_id)
    tree.refresh_port_pools(connection, set(were_ports).difference(are_ports))
    tree.update_statuses(connection, are_ports)
    cells = [cell.model_dump() for cell in report.numa_cells]
    recorded = {"compute_node_id": node_id, "digest": report.digest, "numa_cells": cells}
    connection.execute(_RECORD_REPORT, recorded)
    return InventoryAnswer(resend=False)


def _owned_by_another(host: str) -> HostOwnedByAnotherAgent:
    return HostOwnedByAnotherAgent(
        f"another agent that is alive reports for host {host}: "
        "set another [DEFAULT] host for one of the two, or stop it",
        host=host,
    )
