"""The SQL of the fleet's metrics. It reads a row for each port, and bounded ends of indexes; no VFs.

Of a port whose VFs are in several pools, which is rare, it counts the held VFs.
"""

from __future__ import annotations

import sqlalchemy as sa

MOST = 10_000

LEAD = sa.text("SELECT pg_try_advisory_lock(:lock)")

HOSTS = sa.text("""
    SELECT count(*) FILTER (WHERE disabled_reason IS NOT NULL) AS drained,
           count(*) FILTER (WHERE disabled_reason IS NULL AND silent) AS silent,
           count(*) FILTER (WHERE disabled_reason IS NULL AND NOT silent) AS up
      FROM (SELECT disabled_reason,
                   last_seen < now() - make_interval(secs => :agent_down_after) AS silent
              FROM compute_nodes) host
""")

# As the view pool_totals says it, but by pool. Devices that no entry of device_spec takes are left out.
DEVICES = sa.text("""
    WITH port AS MATERIALIZED (
        SELECT d.id, d.pool_id, d.status, d.offered, n.disabled_reason IS NULL AS open
          FROM pci_devices d
          JOIN compute_nodes n ON n.id = d.compute_node_id
         WHERE d.parent_id IS NULL AND d.status <> 'removed'
    ), vf AS (
        SELECT pp.pool_id, pp.devices, port.status, pp.whole,
               CASE WHEN port.open THEN pp.free ELSE 0 END AS available,
               CASE WHEN pp.held = 0 THEN 0
                    WHEN EXISTS (SELECT FROM port_pools other
                                  WHERE other.port_id = pp.port_id AND other.pool_id <> pp.pool_id)
                    THEN (SELECT count(*) FROM pci_devices d
                           WHERE d.parent_id = pp.port_id AND d.pool_id = pp.pool_id AND NOT d.unheld)
                    ELSE pp.held END AS held
          FROM port_pools pp
          JOIN port ON port.id = pp.port_id
         WHERE pp.devices > 0
    )
    SELECT pool_id, sum(devices)::bigint AS devices, sum(available)::bigint AS available,
           sum(held)::bigint AS held,
           coalesce(sum(devices - held) FILTER (WHERE status = 'claimed'), 0)::bigint AS unclaimable,
           count(*) FILTER (WHERE whole AND available > 0) AS whole_ports
      FROM vf GROUP BY pool_id
     UNION ALL
    SELECT pool_id, count(*), count(*) FILTER (WHERE status = 'available' AND open),
           count(*) FILTER (WHERE status IN ('claimed', 'allocated')),
           count(*) FILTER (WHERE status = 'unclaimable'),
           count(*) FILTER (WHERE status = 'available' AND open)
      FROM port WHERE offered GROUP BY pool_id
""")

CLAIMS = sa.text("""
    SELECT wanted.status, counted.claims
      FROM unnest(cast(:statuses AS text[])) AS wanted (status)
     CROSS JOIN LATERAL (
           SELECT count(*) AS claims
             FROM (SELECT FROM claims WHERE status = wanted.status LIMIT :most) AS read) counted
""")

WAITING = sa.text("""
    SELECT requests -> 'extra_specs' ->> 'pci_passthrough:alias' AS alias, count(*) AS claims,
           cast(extract(epoch FROM now() - min(queued_at)) AS double precision) AS oldest
      FROM (SELECT requests, queued_at FROM waiting_claims ORDER BY position LIMIT :most) AS read
     GROUP BY 1
""")

STEPS = sa.text("""
    SELECT count(*) FILTER (WHERE send_after <> 'infinity') AS awaited,
           count(*) FILTER (WHERE send_after = 'infinity') AS parked,
           count(*) FILTER (WHERE send_after < now()) AS due,
           cast(coalesce(extract(epoch FROM now() - min(created_at)), 0) AS double precision) AS oldest
      FROM (SELECT created_at, send_after FROM outbox ORDER BY send_after LIMIT :most) AS read
""")

EVENTS = sa.text("""
    SELECT cursor.kind, unpublished.events,
           cast(coalesce(extract(epoch FROM now() - unpublished.first), 0) AS double precision) AS oldest
      FROM event_cursors cursor
     CROSS JOIN LATERAL (
           SELECT count(*) AS events, min(at) AS first
             FROM ((SELECT at FROM claim_events
                     WHERE cursor.kind = 'claim' AND id > cursor.last_id ORDER BY id LIMIT :most)
                    UNION ALL
                   (SELECT at FROM device_events
                     WHERE cursor.kind = 'device' AND id > cursor.last_id ORDER BY id LIMIT :most)) AS read
           ) unpublished
""")
