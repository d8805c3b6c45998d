"""Inserts a fleet of any size into an empty, migrated database: a million devices take a minute."""

from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from portclaim.services.conductor.host_counter import count_hosts

AGENT = UUID(int=1)
"""The agent id of every host."""

DIGEST = "as built"
"""The inventory digest of every host."""


class Size(NamedTuple):
    """The number of hosts (`host-1`, `host-2`, ...), of ports on each host, and of VFs on each port."""

    hosts: int
    ports: int
    vfs: int

    def __str__(self) -> str:
        return f"{self.hosts}x{self.ports}x{self.vfs}"


# The rows that reports would write. The first half of a host's ports is on NUMA node 0, the rest on node 1.
# Each port has its own bus. Its VFs follow it there and, if there are many, on the next bus.
_BUILD = """
INSERT INTO compute_nodes (host, agent_id, inventory_digest, inventoried_at, last_seen)
SELECT 'host-' || n, %(agent)s, %(digest)s, now(), now() + interval '1 day'
  FROM generate_series(1, %(hosts)s) n;

INSERT INTO pools (dev_type, vendor_id, product_id, tags)
VALUES ('type-PF', '8086', '1572', '{}'), ('type-VF', '8086', '154c', '{}');

INSERT INTO pci_devices (compute_node_id, pool_id, numa_node, vfs, offered, address, dev_type, status)
SELECT n.id, p.id, port * 2 / %(ports)s, %(vfs)s, true,
       format('0000:%%s:00.0', lpad(to_hex(port * 2), 2, '0')), 'type-PF', 'available'
  FROM compute_nodes n
 CROSS JOIN generate_series(0, %(ports)s - 1) port
  JOIN pools p ON p.dev_type = 'type-PF'
 ORDER BY n.id, port;

INSERT INTO pci_devices (compute_node_id, parent_id, pool_id, numa_node, offered, address, dev_type, status)
SELECT pf.compute_node_id, pf.id, p.id, pf.numa_node, true,
       format('0000:%%s:%%s.%%s', lpad(to_hex((pf.id - 1) %% %(ports)s * 2 + place / 256), 2, '0'),
              lpad(to_hex(place %% 256 / 8), 2, '0'), place %% 8), 'type-VF', 'available'
  FROM pci_devices pf
 CROSS JOIN generate_series(8, %(vfs)s + 7) place
  JOIN pools p ON p.dev_type = 'type-VF'
 ORDER BY pf.id, place
"""

# Half of the VFs of every second port are held. On every fourth port their claims still wait for the attach;
# on the others they are allocated.
_USE = """
UPDATE pci_devices SET status = CASE id %% 4 WHEN 1 THEN 'unavailable' ELSE 'unclaimable' END
 WHERE dev_type = 'type-PF' AND id %% 2 = 1;

INSERT INTO claims (id, instance_id, compute_node_id, status, request, first_device_id)
SELECT gen_random_uuid(), gen_random_uuid(), vf.compute_node_id,
       CASE pf.status WHEN 'unavailable' THEN 'allocated' ELSE 'claimed' END, '{}', vf.id
  FROM (SELECT *, row_number() OVER (PARTITION BY parent_id ORDER BY id) AS place
          FROM pci_devices WHERE dev_type = 'type-VF') vf
  JOIN pci_devices pf ON pf.id = vf.parent_id
 WHERE place <= %(vfs)s / 2 AND pf.status <> 'available'
 ORDER BY vf.id;

UPDATE pci_devices vf SET status = c.status, claim_id = c.id FROM claims c WHERE vf.id = c.first_device_id;

INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)
SELECT claim_id, id, pool_id, 0 FROM pci_devices WHERE claim_id IS NOT NULL;

INSERT INTO claim_events (claim_id, to_status, cause) SELECT id, 'claimed', 'claim' FROM claims;
INSERT INTO claim_events (claim_id, from_status, to_status, cause)
SELECT id, 'claimed', 'allocated', 'attach done' FROM claims WHERE status = 'allocated';

INSERT INTO outbox (claim_id, step, action, sends, send_after)
SELECT id, 1, 'attach', 1, now() + interval '1 day' FROM claims WHERE status = 'claimed'
"""

_COUNT = "SELECT refresh_port_pools(array_agg(id)) FROM pci_devices WHERE dev_type = 'type-PF'"


def build(engine: sa.Engine, size: Size, *, used: bool = True) -> None:
    """Fill the database. Foreign keys are not checked, because these rows never break one."""
    facts = {**size._asdict(), "agent": str(AGENT), "digest": DIGEST}
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for part in (_BUILD, *([_USE] if used else []), _COUNT):
            connection.exec_driver_sql(part, facts)
    count_hosts(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")
