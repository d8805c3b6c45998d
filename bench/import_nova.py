"""``python -m bench.import_nova [HOSTS]``: what an import of a large cell costs, on a PostgreSQL of its own.

A host has two ports of 49 VFs, 100 devices in all. Of 40 of them Nova has given two each to 20 instances. The
cell's tables are Nova's own (``nova-34.sql``); the rows are written by SQL.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from portclaim.cli.embedded import start_postgresql
from portclaim.cli.nova.carry_out import carry_out, plan_cell
from portclaim.cli.nova.cell import NovaCell, read_cell
from portclaim.cli.nova.plan import HostPlan
from portclaim.common.db import migrate
from portclaim.common.db.transaction import connect
from tests.nova import cell

T = TypeVar("T")
_FILL = """
    DELETE FROM pci_devices; DELETE FROM instance_extra; DELETE FROM instances;
    INSERT INTO compute_nodes (id, host, deleted, vcpus, memory_mb, local_gb, vcpus_used, memory_mb_used,
                               local_gb_used, hypervisor_type, hypervisor_version, cpu_info)
    SELECT 1000 + n, 'host-' || lpad(n::text, 5, '0'), 0, 1, 1, 1, 1, 1, 1, 'QEMU', 1, ''
      FROM generate_series(1, {hosts}) n;
    DELETE FROM compute_nodes WHERE id < 1000;
    INSERT INTO pci_devices (id, compute_node_id, address, vendor_id, product_id, dev_type, dev_id, label,
                             status, numa_node, deleted, parent_addr, instance_uuid, request_id)
    SELECT row_number() OVER (), n.id, format('0000:%s:%s.%s', lpad(to_hex(port), 2, '0'),
               lpad(to_hex(vf / 8), 2, '0'), vf % 8), '8086', CASE vf WHEN 0 THEN '1572' ELSE '154c' END,
           CASE vf WHEN 0 THEN 'type-PF' ELSE 'type-VF' END, '', '', CASE
               WHEN vf = 0 THEN 'unavailable' WHEN vf <= 20 THEN 'allocated' ELSE 'available' END, 0, 0,
           CASE WHEN vf > 0 THEN format('0000:%s:00.0', lpad(to_hex(port), 2, '0')) END,
           CASE WHEN vf BETWEEN 1 AND 20 THEN md5(format('%s/%s', n.id, vf))::uuid::text END,
           CASE WHEN vf BETWEEN 1 AND 20 THEN md5(format('r%s/%s', n.id, vf))::uuid::text END
      FROM compute_nodes n CROSS JOIN generate_series(1, 2) port CROSS JOIN generate_series(0, 49) vf;
    INSERT INTO instances (id, uuid, host, vm_state, deleted)
    SELECT row_number() OVER (), instance_uuid, host, 'active', 0
      FROM (SELECT DISTINCT instance_uuid, n.host
              FROM pci_devices JOIN compute_nodes n ON n.id = compute_node_id
             WHERE instance_uuid IS NOT NULL) holders;
    INSERT INTO instance_extra (id, instance_uuid, deleted, pci_requests)
    SELECT row_number() OVER (), instance_uuid, 0,
           json_build_array(json_build_object('count', 2, 'alias_name', 'nic-vf', 'request_id', request_id,
               'spec', json_build_array(json_build_object('vendor_id', '8086', 'product_id', '154c'))))::text
      FROM (SELECT DISTINCT instance_uuid, request_id FROM pci_devices WHERE instance_uuid IS NOT NULL) asked;
"""
# On each hundredth host, Nova gives another VF to an instance.
_CHANGE = """
    UPDATE pci_devices d
       SET status = 'allocated', instance_uuid = other.instance_uuid, request_id = other.request_id
      FROM pci_devices other
     WHERE other.compute_node_id = d.compute_node_id AND d.compute_node_id % 100 = 0
       AND d.address = '0000:01:03.0' AND other.address = '0000:01:00.1'
"""


def timed(what: str, do: Callable[[], T]) -> T:
    begin = time.perf_counter()
    done = do()
    print(f"{what:<60} {time.perf_counter() - begin:8.2f} s")
    return done


def main() -> None:
    hosts = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    server, base = start_postgresql()
    try:
        administer(base, "CREATE DATABASE nova", "CREATE DATABASE portclaim")
        nova, ours = (
            sa.make_url(base).set(database=name).render_as_string(hide_password=False)
            for name in ("nova", "portclaim")
        )
        cell.load(nova)
        administer(nova, _FILL.format(hosts=hosts), "ANALYZE")
        migrate.upgrade(ours)
        measure(nova, ours)
    finally:
        server.stop()


def measure(nova: str, ours: str) -> None:
    engine = connect(ours, pool_size=1)

    def run(name: str, *only: str) -> list[HostPlan]:
        def whole() -> list[HostPlan]:
            found: NovaCell = timed(f"{name}: read Nova", lambda: read_cell(nova, only))
            plans = timed(f"{name}: plan", lambda: plan_cell(engine, found))
            timed(f"{name}: carry out", lambda: carry_out(engine, plans, lambda _plan: None))
            return plans

        plans = timed(f"{name}: all", whole)
        changed = sum(not plan.is_done for plan in plans)
        print(f"{name}: {changed} of {len(plans)} hosts had to be changed")
        return plans

    plans = run("first run")
    devices = sum(len(plan.devices) for plan in plans)
    print(f"{devices} devices, {sum(len(plan.claims) for plan in plans)} claims")
    administer(ours, "ANALYZE")
    run("second run")
    administer(nova, _CHANGE)
    run("after a change in Nova")
    run("one host", "host-00001")
    administer(ours, "UPDATE compute_nodes SET agent_id = gen_random_uuid(), last_seen = now()")
    administer(nova, "UPDATE pci_devices SET request_id = NULL WHERE address = '0000:01:00.1'")
    run("when all agents report, and a device of each host differs")
    for table, (size, count) in sizes(ours).items():
        print(f"{table}: {count} rows, {size}")
    print(f"most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


def sizes(url: str) -> dict[str, tuple[str, int]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return {
            table: (
                connection.scalar(sa.text(f"SELECT pg_size_pretty(pg_total_relation_size('{table}'))")),
                connection.scalar(sa.text(f"SELECT count(*) FROM {table}")),
            )
            for table in ("pci_devices", "claims", "claim_devices", "claim_events", "device_events")
        }


def administer(url: str, *statements: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


if __name__ == "__main__":
    main()
