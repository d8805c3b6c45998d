"""The SQL of the fleet's summary. It reads the sums of hosts, and bounded ends of indexes; no devices."""

from __future__ import annotations

import sqlalchemy as sa

MOST = 10_000

HOSTS = sa.text("""
    SELECT count(*) AS hosts,
           count(*) FILTER (WHERE disabled_reason IS NOT NULL) AS hosts_drained,
           count(*) FILTER (
               WHERE disabled_reason IS NULL
                 AND last_seen < now() - make_interval(secs => :agent_down_after)) AS hosts_silent
      FROM compute_nodes
""")

SILENT_HOSTS = sa.text("""
    SELECT host, cast(extract(epoch FROM now() - last_seen) AS double precision) AS silent_for
      FROM compute_nodes
     WHERE disabled_reason IS NULL AND last_seen < now() - make_interval(secs => :agent_down_after)
     ORDER BY last_seen DESC, host
     LIMIT 10
""")

POOLS = sa.text("""
    SELECT p.dev_type, p.vendor_id, p.product_id,
           cast(sum(h.devices) AS bigint) AS devices,
           cast(coalesce(sum(h.free) FILTER (WHERE NOT h.disabled), 0) AS bigint) AS free
      FROM (SELECT pool_id, disabled, sum(devices) AS devices, sum(free) AS free
              FROM host_pools GROUP BY pool_id, disabled) h
      JOIN pools p ON p.id = h.pool_id
     GROUP BY p.dev_type, p.vendor_id, p.product_id
    HAVING sum(h.devices) > 0
     ORDER BY sum(h.devices) DESC, p.dev_type, p.vendor_id, p.product_id
     LIMIT 50
""")

IN_PROGRESS = sa.text("""
    SELECT wanted.status, counted.claims
      FROM unnest(cast(:statuses AS text[])) AS wanted (status)
     CROSS JOIN LATERAL (
           SELECT count(*) AS claims
             FROM (SELECT FROM claims WHERE status = wanted.status LIMIT :most) AS read) counted
""")

CHANGES = sa.text("""
    WITH newest AS MATERIALIZED (
        SELECT at, to_status FROM claim_events ORDER BY id DESC LIMIT :most
    ), span AS (
        SELECT CASE WHEN count(*) < :most THEN make_interval(secs => 60)
                    ELSE least(make_interval(secs => 60), now() - min(at)) END AS span
          FROM newest
    )
    SELECT cast(extract(epoch FROM span) AS double precision) AS seconds, counted.to_status, counted.changes
      FROM span
      LEFT JOIN LATERAL (
           SELECT to_status, count(*) AS changes FROM newest WHERE at >= now() - span GROUP BY to_status
           ) counted ON true
""")

STEPS = sa.text("""
    SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT :most) AS read) AS steps,
           (SELECT count(*)
              FROM (SELECT FROM outbox WHERE send_after = 'infinity' LIMIT :most) AS read) AS steps_parked
""")

REFUSED = sa.text("""
    SELECT reason, nullif(alias, '') AS alias, cast(sum(refused) AS bigint) AS refused
      FROM refused_claims
     WHERE minute > now() - make_interval(hours => 1)
     GROUP BY reason, refused_claims.alias
     ORDER BY sum(refused) DESC, reason, refused_claims.alias
     LIMIT 20
""")

REFUSED_BY_MINUTE = sa.text("""
    SELECT minute, json_object_agg(reason, refused ORDER BY reason) AS refused
      FROM (SELECT minute, reason, cast(sum(refused) AS bigint) AS refused
              FROM refused_claims
             WHERE minute > now() - make_interval(hours => 1)
             GROUP BY minute, reason) counted
     GROUP BY minute
     ORDER BY minute
""")
