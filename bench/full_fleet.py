"""Fills a fleet: each port's free VFs go to one claim, so that nothing is left."""

from __future__ import annotations

import sqlalchemy as sa

from portclaim.services.conductor.host_counter import count_hosts

_FILL = """
CREATE TEMPORARY TABLE filled ON COMMIT DROP AS
SELECT gen_random_uuid() AS claim_id, compute_node_id, parent_id, min(id) AS first_device_id
  FROM pci_devices
 WHERE dev_type = 'type-VF' AND status = 'available'
 GROUP BY compute_node_id, parent_id;

INSERT INTO claims (id, instance_id, compute_node_id, status, request, first_device_id)
SELECT claim_id, gen_random_uuid(), compute_node_id, 'allocated', '{}', first_device_id FROM filled;

INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)
SELECT filled.claim_id, vf.id, vf.pool_id, 0
  FROM filled JOIN pci_devices vf USING (parent_id)
 WHERE vf.status = 'available';

UPDATE pci_devices vf SET status = 'allocated', claim_id = filled.claim_id
  FROM filled WHERE vf.parent_id = filled.parent_id AND vf.status = 'available';

UPDATE pci_devices pf SET status = 'unavailable'
  FROM filled WHERE pf.id = filled.parent_id AND pf.status = 'available';

SELECT refresh_port_pools(array_agg(id)) FROM pci_devices WHERE dev_type = 'type-PF'
"""


def fill(url: str) -> None:
    """Claim all that is free in this database. Foreign keys are not checked: these rows never break one."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(_FILL)
    count_hosts(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")
