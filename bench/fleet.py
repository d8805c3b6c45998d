"""A fleet of any size, written straight into the database: a million devices in under a minute."""

from __future__ import annotations

import json
from typing import NamedTuple
from uuid import UUID, uuid4

import sqlalchemy as sa

from common.db import migrate
from common.pci.alias import Aliases
from common.pci.extra_specs import requests_from_extra_specs
from services.scheduler.fleet import Wanted

AGENT = UUID("00000000-0000-4000-8000-000000000001")
"""The agent of every host."""

ALIASES = [
    json.dumps({"name": "nic-pf", "vendor_id": "8086", "product_id": "1572", "device_type": "type-PF"}),
    json.dumps({"name": "nic-vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}),
]


class Size(NamedTuple):
    """So many hosts, ports (PFs) on each, and VFs on each port."""

    hosts: int
    pfs: int
    vfs: int

    @property
    def devices(self) -> int:
        return self.hosts * self.pfs * (1 + self.vfs)

    def __str__(self) -> str:
        return f"{self.hosts}x{self.pfs}x{self.vfs}"


# As inventory reports would leave it: the first half of a host's ports on NUMA node 0, the others on 1;
# each port on a bus of its own, its VFs in the places behind it and, if there are many, on the next bus.
_BUILD = """
INSERT INTO compute_nodes (host, agent_id, inventory_digest, inventoried_at)
SELECT 'host-' || n, %(agent)s, 'bench', now() FROM generate_series(1, %(hosts)s) n;

INSERT INTO pools (dev_type, vendor_id, product_id, tags)
VALUES ('type-PF', '8086', '1572', '{}'), ('type-VF', '8086', '154c', '{}');

INSERT INTO pci_devices (compute_node_id, pool_id, numa_node, vfs, offered, address, dev_type, status)
SELECT n.id, p.id, port * 2 / %(pfs)s, %(vfs)s, true,
       format('0000:%%s:00.0', lpad(to_hex(port * 2), 2, '0')), 'type-PF', 'available'
  FROM compute_nodes n
 CROSS JOIN generate_series(0, %(pfs)s - 1) port
  JOIN pools p ON p.dev_type = 'type-PF'
 ORDER BY n.id, port;

INSERT INTO pci_devices (compute_node_id, parent_id, pool_id, numa_node, offered, address, dev_type, status)
SELECT pf.compute_node_id, pf.id, p.id, pf.numa_node, true,
       format('0000:%%s:%%s.%%s', lpad(to_hex((pf.id - 1) %% %(pfs)s * 2 + place / 256), 2, '0'),
              lpad(to_hex(place %% 256 / 8), 2, '0'), place %% 8), 'type-VF', 'available'
  FROM pci_devices pf
 CROSS JOIN generate_series(8, %(vfs)s + 7) place
  JOIN pools p ON p.dev_type = 'type-VF'
 ORDER BY pf.id, place;

"""

# Every other port has half of its VFs in use.
_USE = """
INSERT INTO claims (id, instance_id, compute_node_id, status, request, first_device_id)
SELECT gen_random_uuid(), gen_random_uuid(), vf.compute_node_id, 'allocated',
       '{"extra_specs": {"pci_passthrough:alias": "nic-vf:1"}}', vf.id
  FROM pci_devices vf
 WHERE parent_id %% 2 = 1 AND (id - 1 - %(hosts)s * %(pfs)s) %% %(vfs)s < %(vfs)s / 2
 ORDER BY vf.id;

UPDATE pci_devices vf
   SET status = 'allocated', claim_id = c.id
  FROM claims c
 WHERE vf.id = c.first_device_id;

UPDATE pci_devices pf
   SET status = 'unavailable'
  FROM claims c
  JOIN pci_devices vf ON vf.id = c.first_device_id
 WHERE pf.id = vf.parent_id;

INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)
SELECT claim_id, id, pool_id, 0 FROM pci_devices WHERE claim_id IS NOT NULL;

INSERT INTO claim_events (claim_id, to_status, cause) SELECT id, 'claimed', 'claim' FROM claims;

INSERT INTO claim_events (claim_id, from_status, to_status, cause)
SELECT id, 'claimed', 'allocated', 'attach done' FROM claims;
"""

_COUNT = "SELECT count_ports(array_agg(id)) FROM pci_devices WHERE dev_type = 'type-PF'"


def new_fleet(cluster_url: str, size: Size, *, used: bool = True) -> str:
    """A database of its own with such a fleet, partly in use or all free; answers its URL."""
    name = f"fleet_{size}_{uuid4().hex[:6]}"
    cluster = sa.create_engine(cluster_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with cluster.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    url = sa.make_url(cluster_url).set(database=name).render_as_string(hide_password=False)
    migrate.upgrade(url)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    build(engine, size, used=used)
    return url


def build(engine: sa.Engine, size: Size, *, used: bool) -> None:
    """Fill an empty, migrated database. Every row is right by itself, so no foreign key is looked at."""
    facts = {**size._asdict(), "agent": str(AGENT)}
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(_BUILD, facts)
        if used:
            connection.exec_driver_sql(_USE, facts)
        connection.exec_driver_sql(_COUNT)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")


def wanted(alias: str) -> Wanted:
    """What a flavor with this alias asks for, like ``nic-vf:1``."""
    requests = requests_from_extra_specs({"pci_passthrough:alias": alias}, Aliases.parse(ALIASES))
    return Wanted(requests.requests)
