"""The SQL of histories. Each statement reads ``limit`` rows of each device or claim from an index at most."""

from __future__ import annotations

import sqlalchemy as sa

_DEVICES = """
    devices AS (
        SELECT d.id, d.address
          FROM pci_devices d
         WHERE d.compute_node_id = (SELECT id FROM compute_nodes WHERE host = :host)
           AND (cast(:address AS text) IS NULL OR d.address = :address
                OR d.parent_id = (SELECT pf.id FROM pci_devices pf
                                   WHERE pf.compute_node_id = d.compute_node_id AND pf.address = :address))
    )"""

_HOLDING = """
    SELECT n.host, d.address, p.dev_type, held.claim_id, c.instance_id, held.held_from, held.held_until,
           c.status AS claim_status
      FROM held
      JOIN claims c ON c.id = held.claim_id
      JOIN pci_devices d ON d.id = held.device_id
      JOIN compute_nodes n ON n.id = d.compute_node_id
      JOIN pools p ON p.id = held.pool_id
     ORDER BY held.held_from DESC, d.address"""

_HOLDINGS_OF_CLAIM = """
    WITH held AS (
        SELECT * FROM claim_devices WHERE claim_id = :claim_id ORDER BY held_from DESC, device_id LIMIT :limit
    ){holding}
"""
HOLDINGS_OF_CLAIM = sa.text(_HOLDINGS_OF_CLAIM.format(devices=_DEVICES, holding=_HOLDING))

_HOLDINGS_OF_HOST = """
    WITH {devices}, held AS (
        SELECT latest.*
          FROM devices
         CROSS JOIN LATERAL (
               SELECT * FROM claim_devices cd
                WHERE cd.device_id = devices.id
                ORDER BY cd.held_from DESC LIMIT :limit) latest
         ORDER BY latest.held_from DESC, devices.address
         LIMIT :limit
    ){holding}
"""
HOLDINGS_OF_HOST = sa.text(_HOLDINGS_OF_HOST.format(devices=_DEVICES, holding=_HOLDING))

CHANGES_OF_CLAIM = sa.text("""
    SELECT at, NULL AS address, from_status, to_status, cause
      FROM claim_events
     WHERE claim_id = :claim_id
     ORDER BY id DESC
     LIMIT :limit
""")

_CHANGES_OF_HOST = """
    WITH {devices}
    SELECT latest.at, devices.address, latest.from_status, latest.to_status, latest.cause
      FROM devices
     CROSS JOIN LATERAL (
           SELECT * FROM device_events e
            WHERE e.device_id = devices.id
            ORDER BY e.id DESC LIMIT :limit) latest
     ORDER BY latest.id DESC
     LIMIT :limit
"""
CHANGES_OF_HOST = sa.text(_CHANGES_OF_HOST.format(devices=_DEVICES, holding=_HOLDING))

STEPS = sa.text("""
    WITH page AS (
        SELECT claim_id, step, created_at FROM outbox
         WHERE claim_id = ANY(ARRAY(
               SELECT id FROM claims WHERE id = cast(:claim_id AS uuid)
                UNION ALL
               SELECT c.id
                 FROM compute_nodes n
                 JOIN claims c ON c.compute_node_id = n.id AND c.live
                WHERE n.host = cast(:host AS text)
                  AND (cast(:address AS text) IS NULL OR EXISTS (
                       SELECT FROM pci_devices d
                        WHERE d.claim_id = c.id
                          AND (d.address = :address OR d.parent_id = (
                               SELECT pf.id FROM pci_devices pf
                                WHERE pf.compute_node_id = n.id AND pf.address = :address))))))
         ORDER BY created_at, claim_id, step
         LIMIT :limit
    )
    SELECT s.host, s.claim_id, s.instance_id, s.step, s.action, s.parked, s.times_sent,
           cast(extract(epoch FROM s.awaited_for) AS double precision) AS awaited_for,
           cast(extract(epoch FROM s.agent_silent_for) AS double precision) AS agent_silent_for,
           s.last_failure
      FROM page
     CROSS JOIN LATERAL (
           SELECT * FROM awaited_steps a
            WHERE a.claim_id = page.claim_id AND a.step = page.step
            LIMIT 1) s
     ORDER BY page.created_at, page.claim_id, page.step
""")

CLAIM = sa.text("""
    SELECT n.last_seen < now() - make_interval(secs => :agent_down_after) AS is_silent
      FROM claims c
      LEFT JOIN compute_nodes n ON n.id = c.compute_node_id
     WHERE c.id = :claim_id
""")

HOST = sa.text("""
    SELECT last_seen < now() - make_interval(secs => :agent_down_after) AS is_silent,
           cast(:address AS text) IS NULL OR EXISTS (
               SELECT FROM pci_devices d
                WHERE d.compute_node_id = n.id AND d.address = :address) AS has_device
      FROM compute_nodes n
     WHERE host = :host
""")
