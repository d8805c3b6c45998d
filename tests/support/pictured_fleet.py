"""A fleet in use, as an operator may meet one: for the pictures of the page, and to measure the page on."""

from __future__ import annotations

import sqlalchemy as sa

from portclaim.services.conductor.host_counter import count_hosts
from tests.support.straight_fleet import Size, build

# Racks fill one after the other: of their ports, some are held whole, some have VFs held by claims of up to 8
# VFs. Some hosts are drained, some are silent, and some ports cannot be used.
_USE = """
SELECT setseed(0.42);

UPDATE compute_nodes
   SET host = 'r' || to_char((id - 1) / 25 + 1, 'FM9900') || '-n' || to_char((id - 1) %% 25 + 1, 'FM00'),
       disabled_reason = CASE WHEN id %% 130 = 17 THEN 'firmware update' END,
       last_seen = CASE WHEN id %% 400 = 60 THEN now() - interval '11 minutes' ELSE last_seen END;

CREATE TEMPORARY TABLE port ON COMMIT DROP AS
SELECT id, compute_node_id, kind, random() AS share, random() AS age
  FROM (SELECT id, compute_node_id,
               CASE WHEN random() < 1.1 - 0.95 * compute_node_id / max(compute_node_id) OVER ()
                    THEN random() * 0.68 ELSE 0.68 + random() * 0.32 END AS kind
          FROM pci_devices WHERE dev_type = 'type-PF' ORDER BY id) each;

CREATE TEMPORARY TABLE taken ON COMMIT DROP AS
SELECT port.id AS device_id, port.compute_node_id, gen_random_uuid() AS claim_id, port.id AS port_id,
       true AS whole, CASE WHEN share < 0.05 THEN 'claimed' ELSE 'allocated' END AS status, age
  FROM port WHERE kind < 0.17
 UNION ALL
SELECT vf.id, vf.compute_node_id, c.claim_id, vf.parent_id, false, c.status, c.age
  FROM (SELECT *, row_number() OVER (PARTITION BY parent_id ORDER BY id) - 1 AS place
          FROM pci_devices WHERE dev_type = 'type-VF') vf
  JOIN (SELECT port.*, part, gen_random_uuid() AS claim_id,
               CASE WHEN random() < 0.05 THEN 'claimed' ELSE 'allocated' END AS status
          FROM port CROSS JOIN generate_series(0, %(vfs)s / 8) part
         WHERE kind BETWEEN 0.17 AND 0.68) c
    ON c.id = vf.parent_id AND c.part = place / 8
 WHERE place < (CASE WHEN c.kind < 0.5 THEN 1 ELSE 0.1 + c.share * 0.85 END) * %(vfs)s;

INSERT INTO claims
    (id, instance_id, compute_node_id, status, first_device_id, created_at, updated_at, request)
SELECT claim_id, gen_random_uuid(), min(compute_node_id), min(status), min(device_id),
       now() - min(age) * interval '9 days', now() - min(age) * interval '9 days',
       jsonb_build_object('project', (ARRAY['web', 'db', 'ml'])[1 + floor(min(age) * 3)::integer])
  FROM taken GROUP BY claim_id;

INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index, held_from)
SELECT taken.claim_id, device_id, d.pool_id, 0, now() - age * interval '9 days'
  FROM taken JOIN pci_devices d ON d.id = taken.device_id;

UPDATE pci_devices d SET status = taken.status, claim_id = taken.claim_id
  FROM taken WHERE d.id = taken.device_id;

UPDATE pci_devices vf SET status = CASE taken.status WHEN 'claimed' THEN 'unclaimable' ELSE 'unavailable' END
  FROM taken WHERE taken.whole AND vf.parent_id = taken.port_id;

UPDATE pci_devices pf SET status = CASE WHEN held.allocated THEN 'unavailable' ELSE 'unclaimable' END
  FROM (SELECT port_id, bool_or(status = 'allocated') AS allocated
          FROM taken WHERE NOT whole GROUP BY port_id) held
 WHERE pf.id = held.port_id;

UPDATE pci_devices d
   SET status = 'unavailable',
       unusable_reason = 'its VFs did not come back: found 12, wanted %(vfs)s'
  FROM (SELECT id FROM port WHERE kind > 0.994) broken
 WHERE (d.id = broken.id OR d.parent_id = broken.id) AND d.status = 'available';

INSERT INTO claim_events (claim_id, to_status, cause, at)
SELECT id, 'claimed', 'claim', created_at FROM claims;
INSERT INTO claim_events (claim_id, from_status, to_status, cause, at)
SELECT id, 'claimed', 'allocated', 'attach done', created_at + interval '2 s'
  FROM claims WHERE status = 'allocated';

SELECT refresh_port_pools(array_agg(id)) FROM pci_devices WHERE dev_type = 'type-PF'
"""


def build_in_use(engine: sa.Engine, size: Size) -> None:
    """Fill an empty database. Foreign keys are not checked, because these rows never break one."""
    build(engine, size, used=False)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(_USE, {"vfs": size.vfs})
    count_hosts(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")
