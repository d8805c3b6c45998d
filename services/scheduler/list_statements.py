"""The SQL of the lists that callers and operators read page by page.

Each statement takes the fields of its filter, and the place of the last row that was answered as ``after_…``.
Parameters that are null exclude nothing. One row more than ``limit`` says that there are more.
"""

from __future__ import annotations

import sqlalchemy as sa

_OF_POOLS = """
    (cast(:vendor_id AS text) IS NULL AND cast(:product_id AS text) IS NULL OR {pool_id} = ANY(ARRAY(
        SELECT id FROM pools
         WHERE (cast(:vendor_id AS text) IS NULL OR vendor_id = :vendor_id)
           AND (cast(:product_id AS text) IS NULL OR product_id = :product_id))))
"""

# It goes from port to port in the order of the list. So a filter that few devices pass costs what the ports
# number, and not the devices. LIMIT 1 has the view looked up for each device, and not joined as a whole.
_DEVICES = """
    WITH page AS (
        SELECT n.host, port.address AS port, d.is_vf, d.address
          FROM compute_nodes n
          JOIN pci_devices port ON port.compute_node_id = n.id AND port.parent_id IS NULL
         CROSS JOIN LATERAL (
               SELECT false AS is_vf, port.address, port.status
                WHERE port.status = ANY(:statuses)
                  AND (cast(:dev_type AS text) IS NULL OR port.dev_type = :dev_type)
                  AND (cast(:claim_id AS uuid) IS NULL OR port.claim_id = :claim_id)
                  AND {port_of_pools}
                UNION ALL
               SELECT true, vf.address, vf.status
                 FROM pci_devices vf
                WHERE vf.parent_id = port.id
                  AND vf.status = ANY(:statuses)
                  AND coalesce(cast(:dev_type AS text), 'type-VF') = 'type-VF'
                  AND (cast(:claim_id AS uuid) IS NULL OR vf.claim_id = :claim_id)
                  AND {vf_of_pools}
                  AND (cast(:vendor_id AS text) IS NULL AND cast(:product_id AS text) IS NULL
                       OR EXISTS (SELECT FROM port_pools pp
                                   WHERE pp.port_id = port.id
                                     AND {counter_of_pools}))
               ) d
         WHERE (cast(:host AS text) IS NULL OR n.host = :host)
           AND (cast(:claim_id AS uuid) IS NULL OR port.id = ANY(ports_of(:claim_id)))
           AND (cast(:status AS text) IS NULL OR d.status <> 'available'
                OR (n.disabled_reason IS NULL) = (:status = 'available'))
           AND (cast(:after_host AS text) IS NULL
                OR n.host >= :after_host
                   AND (n.host, port.address, d.is_vf, d.address)
                       > (:after_host, :after_port, :after_is_vf, :after_address))
         ORDER BY n.host, port.address, d.is_vf, d.address
         LIMIT :limit + 1
    )
    SELECT page.is_vf, device.*
      FROM page
     CROSS JOIN LATERAL (
           SELECT host, port, address, dev_type, vendor_id, product_id, numa_node, status, effective_status,
                  reason, claim_id, instance_id, tags, on_host
             FROM pf_vf_tree t
            WHERE t.host = page.host AND t.address = page.address
            LIMIT 1) device
     ORDER BY page.host, page.port, page.is_vf, page.address
"""
DEVICES = sa.text(
    _DEVICES.format(
        port_of_pools=_OF_POOLS.format(pool_id="port.pool_id"),
        vf_of_pools=_OF_POOLS.format(pool_id="vf.pool_id"),
        counter_of_pools=_OF_POOLS.format(pool_id="pp.pool_id"),
    )
)

HOSTS = sa.text("""
    SELECT host, cast(extract(epoch FROM agent_silent_for) AS double precision) AS agent_silent_for,
           agent_silent_for > make_interval(secs => :agent_down_after) AS is_silent,
           drained_reason, drained_ports, devices, available,
           pfs_available, pfs_held, vfs_available, vfs_held, live_claims,
           (SELECT cast(extract(epoch FROM now() - max(k.created_at)) AS double precision) FROM host_keys k
             WHERE k.host = hosts.host AND k.revoked_at IS NULL AND k.valid_until IS NULL) AS key_age
      FROM hosts
     WHERE (cast(:host AS text) IS NULL OR host = :host)
       AND (cast(:hosts AS text[]) IS NULL OR host = ANY(:hosts))
       AND (cast(:prefix AS text) IS NULL OR starts_with(host, :prefix))
       AND (cast(:is_silent AS boolean) IS NULL
            OR (agent_silent_for > make_interval(secs => :agent_down_after)) = :is_silent)
       AND (cast(:is_drained AS boolean) IS NULL OR (drained_reason IS NOT NULL) = :is_drained)
       AND (cast(:after_host AS text) IS NULL OR host > :after_host)
     ORDER BY host
     LIMIT :limit + 1
""")

# Claims of a host or of an instance are few. All others are read from the index of each status, in the order
# of their age.
_OF_INSTANCE = """
    SELECT id FROM claims WHERE instance_id = :instance_id AND status = ANY(:statuses)
"""
_OF_HOST = """
    SELECT id FROM claims
     WHERE live AND status = ANY(:statuses)
       AND compute_node_id = (SELECT id FROM compute_nodes WHERE host = :host)
"""
_OF_HOST_ENDED = """
    SELECT id FROM claims
     WHERE NOT live AND status = ANY(:statuses)
       AND id IN (SELECT cd.claim_id
                    FROM compute_nodes n
                    JOIN pci_devices d ON d.compute_node_id = n.id
                    JOIN claim_devices cd ON cd.device_id = d.id
                   WHERE n.host = :host)
"""
_OF_PROJECT = """
    SELECT id FROM claims WHERE request ->> 'project' = :project AND status = ANY(:statuses)
"""
_OF_STATUSES = """
    SELECT c.id
      FROM unnest(cast(:statuses AS text[])) AS wanted (status)
     CROSS JOIN LATERAL (
           SELECT id FROM claims
            WHERE status = wanted.status
              AND (cast(:older_than AS integer) IS NULL
                   OR created_at <= now() - make_interval(secs => :older_than))
              AND (cast(:newer_than AS integer) IS NULL
                   OR created_at >= now() - make_interval(secs => :newer_than))
              AND (cast(:after_created_at AS timestamptz) IS NULL
                   OR (created_at, id) > (:after_created_at, :after_claim_id))
            ORDER BY created_at, id
            LIMIT :limit + 1) c
"""


_CLAIMS = """

    WITH page AS (
        SELECT c.*
          FROM ({source}) found
          JOIN claims c USING (id)
          LEFT JOIN compute_nodes n ON n.id = c.compute_node_id
         WHERE (cast(:host AS text) IS NULL OR n.host = :host)
           AND (cast(:project AS text) IS NULL OR c.request ->> 'project' = :project)
           AND (cast(:older_than AS integer) IS NULL
                OR c.created_at <= now() - make_interval(secs => :older_than))
           AND (cast(:newer_than AS integer) IS NULL
                OR c.created_at >= now() - make_interval(secs => :newer_than))
           AND (cast(:after_created_at AS timestamptz) IS NULL
                OR (c.created_at, c.id) > (:after_created_at, :after_claim_id))
         ORDER BY c.created_at, c.id
         LIMIT :limit + 1
    )
    SELECT page.id AS claim_id, page.instance_id, page.status, page.reason, page.created_at,
           page.updated_at,
           (SELECT host FROM compute_nodes WHERE id = page.compute_node_id) AS host,
           ARRAY(SELECT d.address
                   FROM claim_devices cd
                   JOIN pci_devices d ON d.id = cd.device_id
                  WHERE cd.claim_id = page.id
                  ORDER BY d.address) AS devices,
           (SELECT action FROM outbox o WHERE o.claim_id = page.id AND o.step = page.step) AS awaited_step,
           cast(extract(epoch FROM now() - page.created_at) AS double precision) AS age
      FROM page
     ORDER BY page.created_at, page.id
"""


def claims(*, host: bool, instance: bool, project: bool, ended: bool) -> sa.TextClause:
    """List claims, whose filter names a host, an instance, a project, or also statuses of ended claims."""
    if instance:
        source = _OF_INSTANCE
    elif host:
        source = f"{_OF_HOST} UNION ALL {_OF_HOST_ENDED}" if ended else _OF_HOST
    elif project:
        source = _OF_PROJECT
    else:
        source = _OF_STATUSES
    return sa.text(_CLAIMS.format(source=source))


# The position of a claim in its queue is counted from the claims that came before it: those are on this page,
# or on the pages before it.
WAITING = sa.text("""
    WITH page AS (
        SELECT w.* FROM waiting_claims w
         WHERE (cast(:claim_id AS uuid) IS NULL OR w.id = :claim_id)
           AND (cast(:instance_id AS uuid) IS NULL
                OR w.id = ANY(ARRAY(SELECT id FROM claims WHERE instance_id = :instance_id)))
           AND (cast(:host AS text) IS NULL
                OR w.id = ANY(ARRAY(SELECT d.reserved_for
                                      FROM pci_devices d
                                      JOIN compute_nodes n ON n.id = d.compute_node_id
                                     WHERE d.reserved_for IS NOT NULL AND n.host = :host)))
           AND (cast(:after_arrival AS bigint) IS NULL OR w.position > :after_arrival)
         ORDER BY w.position
         LIMIT :limit + 1
    ), queued AS (
        SELECT id, row_number() OVER (PARTITION BY requests ORDER BY position) AS position
          FROM waiting_claims
         WHERE position <= (SELECT max(position) FROM page) AND requests IN (SELECT requests FROM page)
    )
    SELECT page.id AS claim_id, c.instance_id, queued.position, page.position AS arrival,
           page.requests -> 'extra_specs' ->> 'pci_passthrough:alias' AS alias, page.requests,
           cast(extract(epoch FROM now() - page.queued_at) AS double precision) AS waited,
           cast(extract(epoch FROM page.deadline - now()) AS double precision) AS expires_in,
           reserved.host AS reserved_host, coalesce(reserved.ports, '{}') AS reserved_ports
      FROM page
      JOIN queued USING (id)
      JOIN claims c USING (id)
     CROSS JOIN LATERAL (
           SELECT min(n.host) AS host, array_agg(d.address ORDER BY d.address) AS ports
             FROM pci_devices d
             JOIN compute_nodes n ON n.id = d.compute_node_id
            WHERE d.reserved_for = page.id AND d.parent_id IS NULL
           ) reserved
     ORDER BY page.position
""")

AWAITED_STEPS = sa.text("""
    WITH page AS (
        SELECT claim_id, step, created_at FROM outbox
         WHERE (cast(:host AS text) IS NULL
                OR claim_id = ANY(ARRAY(SELECT c.id
                                          FROM compute_nodes n
                                          JOIN claims c ON c.compute_node_id = n.id AND c.live
                                         WHERE n.host = :host)))
           AND (NOT :parked OR send_after = 'infinity')
           AND (cast(:older_than AS integer) IS NULL
                OR created_at <= now() - make_interval(secs => :older_than))
           AND (cast(:after_created_at AS timestamptz) IS NULL
                OR (created_at, claim_id, step) > (:after_created_at, :after_claim_id, :after_step))
         ORDER BY created_at, claim_id, step
         LIMIT :limit + 1
    )
    SELECT page.created_at, step.*
      FROM page
     CROSS JOIN LATERAL (
           SELECT host, claim_id, instance_id, step, action, parked, times_sent,
                  cast(extract(epoch FROM awaited_for) AS double precision) AS awaited_for,
                  cast(extract(epoch FROM agent_silent_for) AS double precision) AS agent_silent_for,
                  last_failure
             FROM awaited_steps s
            WHERE s.claim_id = page.claim_id AND s.step = page.step
            LIMIT 1) step
     ORDER BY page.created_at, page.claim_id, page.step
""")

# At most as many rows as are kept: a thousand.
REFUSALS = sa.text("""
    SELECT at, claim_id, instance_id, nullif(project, '') AS project, project AS of_project, reason, message,
           request -> 'extra_specs' ->> 'pci_passthrough:alias' AS alias, times, request, is_cut,
           CASE WHEN :explained THEN explanation END AS explanation
      FROM refused_requests
     WHERE at >= now() - interval '1 day'
       AND (cast(:claim_id AS uuid) IS NULL OR claim_id = :claim_id)
       AND (cast(:instance_id AS uuid) IS NULL OR instance_id = :instance_id)
       AND (cast(:project AS text) IS NULL OR project = :project)
       AND (cast(:reason AS text) IS NULL OR reason = :reason)
       AND (cast(:after_at AS timestamptz) IS NULL
            OR (at, claim_id, project) < (:after_at, :after_claim_id, :after_of_project))
     ORDER BY at DESC, claim_id DESC, project DESC
     LIMIT :limit + 1
""")
