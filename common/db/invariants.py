"""Rules that the database must satisfy whenever no transaction is under way.

Each rule is an SQL query for the rows that break it. Its name says what is wrong with such a row.
"""

from __future__ import annotations

import sqlalchemy as sa

HELD = "('claimed', 'allocated')"
GIVEN = "('claimed', 'prepared', 'allocated')"
LIVE = "('claimed', 'prepared', 'allocated', 'releasing')"

# Each query has one column, which names what breaks the rule. `d` is always a device, `c` a claim.
RULES = {
    "a VF and its PF are both held": f"""
        SELECT d.address FROM pci_devices d JOIN pci_devices pf ON pf.id = d.parent_id
         WHERE d.status IN {HELD} AND pf.status IN {HELD}
    """,
    "two claims held a device at the same time": """
        SELECT d.address
          FROM (SELECT device_id, held_from,
                       max(coalesce(held_until, 'infinity')) OVER (
                           PARTITION BY device_id ORDER BY held_from, held_until
                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS held_before
                  FROM claim_devices) hold
          JOIN pci_devices d ON d.id = hold.device_id
         WHERE hold.held_from < hold.held_before
    """,
    "a held device has no live claim, or a free device has one": f"""
        SELECT d.address FROM pci_devices d LEFT JOIN claims c ON c.id = d.claim_id
         WHERE (d.status IN {HELD}) <> coalesce(c.status IN {LIVE}, false)
    """,
    "a held device and its claim have different statuses": """
        SELECT d.address FROM pci_devices d JOIN claims c ON c.id = d.claim_id
         WHERE d.status = 'claimed' AND c.status = 'allocated'
            OR d.status = 'allocated' AND c.status IN ('claimed', 'prepared')
    """,
    "a live claim holds no device": f"""
        SELECT c.id::text FROM claims c
         WHERE c.status IN {LIVE}
           AND NOT EXISTS (SELECT FROM pci_devices d WHERE d.claim_id = c.id)
    """,
    "a claim holds a device of another host": """
        SELECT d.address FROM pci_devices d JOIN claims c ON c.id = d.claim_id
         WHERE d.compute_node_id <> c.compute_node_id
    """,
    "claim_devices and pci_devices name different holders of a device": """
        SELECT d.address
          FROM pci_devices d
          FULL JOIN (SELECT * FROM claim_devices WHERE held_until IS NULL) hold ON hold.device_id = d.id
         WHERE d.claim_id IS DISTINCT FROM hold.claim_id
    """,
    "a device that no claim holds has the wrong status": f"""
        SELECT d.address || ' is ' || d.status || ', its partners: ' || array_agg(p.status)::text
          FROM pci_devices d
          LEFT JOIN pci_devices p ON p.status IN {HELD} AND (p.id = d.parent_id OR p.parent_id = d.id)
         WHERE d.status NOT IN {HELD} AND d.status <> 'removed'
         GROUP BY d.id
        HAVING d.status <> ALL (
               CASE WHEN NOT d.offered THEN '{{unavailable}}'
                    WHEN bool_or(p.status = 'allocated') THEN '{{unavailable}}'
                    WHEN bool_or(p.status = 'claimed') THEN '{{unclaimable, unavailable}}'
                    WHEN d.unusable_reason IS NOT NULL OR d.drained_reason IS NOT NULL OR NOT d.present
                         OR d.reserved_for IS NOT NULL
                    THEN '{{unavailable}}'
                    ELSE '{{available}}' END :: text[])
    """,
    "a removed device is marked as present": """
        SELECT d.address FROM pci_devices d WHERE d.status = 'removed' AND d.present
    """,
    "the parent of a VF is not a PF of the same host": """
        SELECT d.address FROM pci_devices d LEFT JOIN pci_devices pf ON pf.id = d.parent_id
         WHERE d.status <> 'removed' AND d.dev_type = 'type-VF'
           AND (pf.dev_type IS DISTINCT FROM 'type-PF' OR pf.status = 'removed'
                OR pf.compute_node_id <> d.compute_node_id)
    """,
    "a VF and its PF have different drained reasons": """
        SELECT d.address FROM pci_devices d JOIN pci_devices pf ON pf.id = d.parent_id
         WHERE d.status <> 'removed' AND d.drained_reason IS DISTINCT FROM pf.drained_reason
    """,
    "a VF and its PF are reserved for different claims": """
        SELECT d.address FROM pci_devices d JOIN pci_devices pf ON pf.id = d.parent_id
         WHERE d.status <> 'removed' AND d.reserved_for IS DISTINCT FROM pf.reserved_for
    """,
    "a port is reserved for a claim that is not the head of a queue": """
        SELECT d.address
          FROM pci_devices d
          LEFT JOIN waiting_claims w ON w.id = d.reserved_for
         WHERE d.reserved_for IS NOT NULL
           AND (w.id IS NULL
                OR EXISTS (SELECT FROM waiting_claims before
                            WHERE before.requests = w.requests AND before.position < w.position))
    """,
    "ports of several hosts are reserved for one claim": """
        SELECT reserved_for::text FROM pci_devices WHERE reserved_for IS NOT NULL
         GROUP BY reserved_for HAVING count(DISTINCT compute_node_id) > 1
    """,
    "a waiting claim is not in its queue, or a claim in a queue is not waiting": """
        SELECT coalesce(c.id, w.id)::text
          FROM (SELECT * FROM claims WHERE status = 'waiting') c
          FULL JOIN waiting_claims w ON w.id = c.id
         WHERE c.id IS NULL OR w.id IS NULL OR queue_key(c.request) <> w.requests
    """,
    "a claim was served but has no host, or has a host but was not served": """
        SELECT c.id::text FROM claims c
         WHERE (c.compute_node_id IS NULL)
            <> NOT EXISTS (SELECT FROM claim_events e WHERE e.claim_id = c.id AND e.to_status = 'claimed')
    """,
    "a prepared claim has no time of its preparation, or another claim that was never prepared has one": """
        SELECT c.id::text FROM claims c
         WHERE (c.prepared_at IS NOT NULL)
            <> EXISTS (SELECT FROM claim_events e WHERE e.claim_id = c.id AND e.to_status = 'prepared')
    """,
    "a device and its pool have different types": """
        SELECT d.address FROM pci_devices d JOIN pools p ON p.id = d.pool_id WHERE p.dev_type <> d.dev_type
    """,
    "a PF's number of VFs is wrong": """
        SELECT d.address || ': ' || d.vfs || ', and not ' || count(vf.id)
          FROM pci_devices d LEFT JOIN pci_devices vf ON vf.parent_id = d.id AND vf.status <> 'removed'
         GROUP BY d.id HAVING d.vfs <> count(vf.id)
    """,
    "a row of port_pools is wrong": f"""
        WITH truth AS (
            SELECT vf.parent_id AS port_id, vf.pool_id, min(vf.compute_node_id) AS compute_node_id,
                   CASE WHEN count(DISTINCT coalesce(vf.numa_node, -1)) = 1
                        THEN min(vf.numa_node) END AS numa_node,
                   count(*) FILTER (WHERE vf.status <> 'removed') AS devices,
                   count(*) FILTER (WHERE vf.status = 'available') AS free,
                   sum(count(*) FILTER (WHERE vf.status IN {HELD})) OVER (PARTITION BY vf.parent_id) AS held
              FROM pci_devices vf WHERE vf.parent_id IS NOT NULL
             GROUP BY vf.parent_id, vf.pool_id)
        SELECT coalesce(pp::text, 'nothing') || ', and not ' || coalesce(truth::text, 'that')
          FROM port_pools pp FULL JOIN truth USING (port_id, pool_id)
         WHERE (pp.compute_node_id, pp.numa_node, pp.devices, pp.free, pp.held, pp.whole)
               IS DISTINCT FROM
               (truth.compute_node_id, truth.numa_node, truth.devices, truth.free, truth.held, truth.held = 0)
    """,
    "the sums of a counted host are wrong": """
        WITH device AS (
            SELECT d.compute_node_id, d.pool_id, coalesce(d.parent_id, d.id) AS port_id,
                   CASE WHEN d.parent_id IS NULL THEN coalesce(d.numa_node, -1)
                        ELSE coalesce(pp.numa_node, -1) END AS numa_node,
                   d.status = 'available' AS free
              FROM pci_devices d
              LEFT JOIN port_pools pp ON pp.port_id = d.parent_id AND pp.pool_id = d.pool_id
             WHERE d.status <> 'removed'
        ), truth AS (
            SELECT compute_node_id, pool_id, numa_node,
                   count(*) AS devices, count(*) FILTER (WHERE free) AS free,
                   count(DISTINCT port_id) FILTER (WHERE free) AS ports,
                   sum(count(*) FILTER (WHERE free)) OVER host AS host_free,
                   sum(count(DISTINCT port_id) FILTER (WHERE free)) OVER host AS host_ports
              FROM device
             GROUP BY compute_node_id, pool_id, numa_node
            WINDOW host AS (PARTITION BY compute_node_id, pool_id)
        )
        SELECT coalesce(hp::text, 'nothing') || ', and not ' || coalesce(truth::text, 'that')
          FROM (SELECT * FROM host_pools WHERE devices > 0) hp
          FULL JOIN truth USING (compute_node_id, pool_id, numa_node)
          JOIN compute_nodes n ON n.id = compute_node_id
         WHERE n.id <> ALL(uncounted_hosts(ARRAY(SELECT id FROM pools)))
           AND (hp.devices, hp.free, hp.ports, hp.host_free, hp.host_ports, hp.disabled) IS DISTINCT FROM
               (truth.devices, truth.free, truth.ports, truth.host_free, truth.host_ports,
                n.disabled_reason IS NOT NULL)
    """,
    "a claim waits for a step that is not in the outbox": """
        SELECT c.id || ', ' || c.status || ', step ' || c.step
          FROM claims c
          LEFT JOIN outbox o ON o.claim_id = c.id AND o.step = c.step
         WHERE c.status = 'claimed'
               AND o.action IS DISTINCT FROM CASE c.attach WHEN 'auto' THEN 'attach' ELSE 'prepare' END
            OR c.status = 'releasing' AND o.action IS DISTINCT FROM 'detach'
    """,
    "the outbox has a step that no claim waits for": """
        SELECT o.claim_id || ', ' || o.action || ', step ' || o.step
          FROM outbox o
          JOIN claims c ON c.id = o.claim_id
         WHERE o.step <> c.step
            OR c.status NOT IN ('claimed', 'releasing')
               AND (c.status, c.attach, o.action) NOT IN (
                   ('prepared', 'auto', 'attach'), ('allocated', 'auto', 'attach'),
                   ('allocated', 'on-call', 'unplug'))
            OR c.status = 'allocated'
               AND NOT EXISTS (SELECT FROM claim_moves m WHERE m.source_claim_id = c.id AND m.kind = 'live')
    """,
    "the claims of a move are on one host, or of different instances": """
        SELECT s.id::text
          FROM claim_moves m
          JOIN claims s ON s.id = m.source_claim_id
          JOIN claims t ON t.id = m.target_claim_id
         WHERE s.compute_node_id = t.compute_node_id OR s.instance_id <> t.instance_id
    """,
    "a claim belongs to two live moves": """
        SELECT c.id::text FROM claims c JOIN claim_moves m ON c.id IN (m.source_claim_id, m.target_claim_id)
         WHERE m.live GROUP BY c.id HAVING count(*) > 1
    """,
    "the status of a move does not fit the statuses of its claims": f"""
        SELECT m.target_claim_id || ' is ' || m.status || ', from ' || s.status || ' to ' || t.status
          FROM claim_moves m
          JOIN claims s ON s.id = m.source_claim_id
          JOIN claims t ON t.id = m.target_claim_id
         WHERE CASE m.status WHEN 'begun' THEN s.status NOT IN ('allocated', 'prepared')
                                               OR t.status NOT IN {GIVEN}
                             WHEN 'completing' THEN s.status NOT IN ('allocated', 'prepared')
                                                    OR t.status NOT IN ('claimed', 'prepared')
                             WHEN 'completed' THEN s.status IN {GIVEN}
                             WHEN 'reverted' THEN t.status IN {GIVEN} END
            OR m.live AND m.kind = 'cold' AND s.status <> 'allocated'
            OR m.live AND m.kind = 'live' AND t.status = 'allocated'
    """,
    "the source of a move was released before its target was allocated": """
        SELECT m.source_claim_id::text
          FROM claim_moves m
          JOIN claim_events gone ON gone.claim_id = m.source_claim_id
                                 AND gone.cause = 'moved to claim ' || m.target_claim_id
         WHERE NOT EXISTS (SELECT FROM claim_events e
                            WHERE e.claim_id = m.target_claim_id AND e.to_status = 'allocated'
                              AND e.id < gone.id)
    """,
    "an instance lost its devices although nobody released them": """
        SELECT c.instance_id::text
          FROM claims c JOIN claim_events e ON e.claim_id = c.id
         GROUP BY c.instance_id
        HAVING bool_or(e.to_status = 'allocated')
           AND NOT bool_or(c.status = 'allocated')
           AND NOT bool_or(c.status = 'prepared' AND EXISTS (
                           SELECT FROM claim_moves m WHERE m.source_claim_id = c.id AND m.kind = 'live'))
           AND NOT bool_or(e.from_status IN ('allocated', 'prepared')
                           AND e.cause NOT IN ('unplug done', 'attach done')
                           AND e.cause NOT LIKE 'moved to claim %'
                           AND e.cause NOT LIKE 'move of claim % reverted')
    """,
    "the events of a claim do not match its status": """
        SELECT c.id::text
          FROM claims c
          LEFT JOIN (SELECT claim_id, array_agg(to_status ORDER BY id) AS to_status,
                            array_agg(from_status ORDER BY id) AS from_status
                       FROM claim_events GROUP BY claim_id) e ON e.claim_id = c.id
         WHERE e.from_status IS DISTINCT FROM
               array_prepend(NULL, e.to_status[:cardinality(e.to_status) - 1])
            OR e.to_status[cardinality(e.to_status)] IS DISTINCT FROM c.status
    """,
}

_ALL = sa.text(
    " UNION ALL ".join(
        f"(SELECT '{name.replace(chr(39), chr(39) * 2)}' AS rule, what FROM ({sql}) AS broken (what))"
        for name, sql in RULES.items()
    ).replace(":", r"\:")
)


def violations(connection: sa.Connection) -> list[tuple[str, str]]:
    """Each broken rule, with what breaks it."""
    return [(row.rule, row.what) for row in connection.execute(_ALL)]
