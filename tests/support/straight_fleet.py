"""A fleet of any size with half of its ports in use, written straight into an empty, migrated database."""

from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

AGENT = UUID(int=1)
"""The agent of every host."""

DIGEST = "as built"
"""What every host has reported."""


class Size(NamedTuple):
    """So many hosts, `host-1` and so on, with ports on each, and VFs on each port."""

    hosts: int
    ports: int
    vfs: int


# As reports and claims would leave it. Of every second port half of the VFs are allocated; the claims of
# every fourth wait for their attach.
_BUILD = """
INSERT INTO compute_nodes (host, agent_id, inventory_digest, inventoried_at, last_seen)
SELECT 'host-' || n, %(agent)s, %(digest)s, now(), now() + interval '1 day'
  FROM generate_series(1, %(hosts)s) n;

INSERT INTO pools (dev_type, vendor_id, product_id, tags)
VALUES ('type-PF', '8086', '1572', '{}'), ('type-VF', '8086', '154c', '{}');

INSERT INTO pci_devices (compute_node_id, pool_id, numa_node, vfs, offered, address, dev_type, status)
SELECT n.id, p.id, 0, %(vfs)s, true, format('0000:%%s:00.0', lpad(to_hex(port), 2, '0')), 'type-PF',
       CASE WHEN port %% 4 = 1 THEN 'unavailable' WHEN port %% 4 = 3 THEN 'unclaimable' ELSE 'available' END
  FROM compute_nodes n, generate_series(1, %(ports)s) port, pools p
 WHERE p.dev_type = 'type-PF'
 ORDER BY n.id, port;

INSERT INTO pci_devices (compute_node_id, parent_id, pool_id, numa_node, offered, address, dev_type, status)
SELECT pf.compute_node_id, pf.id, p.id, 0, true,
       left(pf.address, 7) || format(':%%s.%%s', lpad(to_hex(vf / 8), 2, '0'), vf %% 8), 'type-VF',
       'available'
  FROM pci_devices pf, generate_series(8, %(vfs)s + 7) vf, pools p
 WHERE p.dev_type = 'type-VF'
 ORDER BY pf.id, vf;

INSERT INTO claims (id, instance_id, compute_node_id, status, request, first_device_id)
SELECT gen_random_uuid(), gen_random_uuid(), pf.compute_node_id,
       CASE pf.status WHEN 'unavailable' THEN 'allocated' ELSE 'claimed' END, '{}', vf.id
  FROM pci_devices pf
  JOIN LATERAL (SELECT id FROM pci_devices WHERE parent_id = pf.id ORDER BY id LIMIT %(vfs)s / 2) vf ON true
 WHERE pf.status <> 'available';

UPDATE pci_devices vf SET status = c.status, claim_id = c.id FROM claims c WHERE vf.id = c.first_device_id;

INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)
SELECT claim_id, id, pool_id, 0 FROM pci_devices WHERE claim_id IS NOT NULL;

INSERT INTO claim_events (claim_id, to_status, cause) SELECT id, 'claimed', 'claim' FROM claims;
INSERT INTO claim_events (claim_id, from_status, to_status, cause)
SELECT id, 'claimed', 'allocated', 'attach done' FROM claims WHERE status = 'allocated';

INSERT INTO outbox (claim_id, step, action, sends, send_after)
SELECT id, 1, 'attach', 1, now() + interval '1 day' FROM claims WHERE status = 'claimed';

SELECT count_ports(array_agg(id)) FROM pci_devices WHERE dev_type = 'type-PF'
"""


def build(engine: sa.Engine, size: Size) -> None:
    """Fill the database. Every row is right by itself, so that no foreign key is looked at."""
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(_BUILD, {**size._asdict(), "agent": str(AGENT), "digest": DIGEST})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")
