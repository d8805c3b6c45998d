"""A fleet as Nova reports it to Placement: a provider for each host, and below it one for each port (PF).

A port's inventory has its PF, and its VFs. The same ports are in use as in Portclaim's fleet.
"""

from __future__ import annotations

import sqlalchemy as sa

from bench.peers import placement_server
from bench.server import Server
from tests.support.straight_fleet import Size

PF, VF = "CUSTOM_PCI_8086_1572", "CUSTOM_PCI_8086_154C"

# A claim keeps a PF and its VFs apart in Nova. Placement does not know that they exclude each other.
_BUILD = """
INSERT INTO resource_providers (uuid, name, generation)
SELECT gen_random_uuid()::text, 'host-' || n, 1 FROM generate_series(1, %(hosts)s) n;
UPDATE resource_providers SET root_provider_id = id;

INSERT INTO resource_providers (uuid, name, generation, root_provider_id, parent_provider_id)
SELECT gen_random_uuid()::text, format('%%s_0000:%%s:00.0', host.name, lpad(to_hex(port * 2), 2, '0')), 1,
       host.id, host.id
  FROM resource_providers host CROSS JOIN generate_series(0, %(ports)s - 1) port
 ORDER BY host.id, port;

INSERT INTO inventories (resource_provider_id, resource_class_id, total, reserved, min_unit, max_unit,
                         step_size, allocation_ratio)
SELECT port.id, class.id, class.total, 0, 1, class.total, 1, 1.0
  FROM resource_providers port
 CROSS JOIN (SELECT id, CASE name WHEN %(pf)s THEN 1 ELSE %(vfs)s END AS total
               FROM resource_classes WHERE name IN (%(pf)s, %(vf)s)) class
 WHERE port.parent_provider_id IS NOT NULL;

INSERT INTO projects (external_id) VALUES ('bench');
INSERT INTO users (external_id) VALUES ('bench')
"""

_CONSUMERS = """
CREATE TEMPORARY TABLE used ON COMMIT DROP AS
SELECT gen_random_uuid()::text AS uuid, port_id, class_id, taken
  FROM (SELECT port.id AS port_id, class.id AS class_id, {free} AS free
          FROM (SELECT id, row_number() OVER (ORDER BY id) AS number FROM resource_providers
                 WHERE parent_provider_id IS NOT NULL) port
         CROSS JOIN (SELECT id, name FROM resource_classes WHERE name IN (%(pf)s, %(vf)s)) class
         WHERE {chosen}) room
 CROSS JOIN LATERAL (SELECT {each} AS taken FROM generate_series(1, {number})) consumer
 WHERE free > 0;

INSERT INTO consumers (uuid, project_id, user_id, generation)
SELECT uuid, (SELECT id FROM projects WHERE external_id = 'bench'),
       (SELECT id FROM users WHERE external_id = 'bench'), 1
  FROM used;
INSERT INTO allocations (resource_provider_id, consumer_id, resource_class_id, used)
SELECT port_id, uuid, class_id, taken FROM used
"""
_HALF_OF_EVERY_SECOND = _CONSUMERS.format(
    free="%(vfs)s / 2", chosen="number %% 2 = 1 AND name = %(vf)s", each="1", number="free"
)
_ALL = _CONSUMERS.format(
    free="""CASE name WHEN %(pf)s THEN 1 ELSE %(vfs)s END - (
            SELECT coalesce(sum(used), 0) FROM allocations a
             WHERE a.resource_provider_id = port.id AND a.resource_class_id = class.id)""",
    chosen="true",
    each="free",
    number="1",
)


def new_fleet(server: Server, size: Size) -> str:
    """A database of Placement's with such a fleet, partly in use; answers its URL."""
    url = server.create_database("placement")
    placement_server.sync(url)
    with placement_server.placement(url) as running:  # it fills its own tables of classes and traits
        for name in (PF, VF):
            status, _ = placement_server.call(running.port, "PUT", f"/resource_classes/{name}")
            assert status in {201, 204}
    _change(url, size, _BUILD, _HALF_OF_EVERY_SECOND)
    return url


def fill(url: str, size: Size) -> None:
    """Allocate all that is free."""
    _change(url, size, _ALL)


def _change(url: str, size: Size, *statements: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, {**size._asdict(), "pf": PF, "vf": VF})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")
