"""Plan the import of a cell, and carry it out: one transaction for each host."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

import sqlalchemy as sa

from portclaim.cli.nova.cell import NovaCell
from portclaim.cli.nova.known import KnownHost, read_known
from portclaim.cli.nova.plan import HostPlan, plan_host
from portclaim.common.db import audit
from portclaim.common.db.sqlstate import as_errors
from portclaim.common.db.transaction import in_transaction

_IMPORT = sa.text("SELECT import_host(:host, :imported_at, :devices, :claims, :withheld)")


def plan_cell(engine: sa.Engine, cell: NovaCell) -> list[HostPlan]:
    """What is to be done with each host, in order of name. Reads Portclaim's database, and writes nothing."""
    known = in_transaction(engine, lambda connection: read_known(connection, cell))
    now = datetime.now(UTC)
    return [
        plan_host(host, cell.hosts[host], cell.instances, known.get(host, KnownHost()), now)
        for host in sorted(cell.hosts)
    ]


def carry_out(
    engine: sa.Engine, plans: Sequence[HostPlan], order: audit.Order, done: Callable[[HostPlan], None]
) -> None:
    """Import host by host, and call ``done`` after each. Hosts with nothing to do cost nothing.

    The audit has each host that is imported, by whose ``order`` and why.

    If it fails, the hosts before are imported, and the next run does the others. Raises ``ClaimConflict`` if
    a host has changed in Portclaim since the plan was made.
    """
    for plan in plans:
        if not plan.is_done:
            with as_errors(host=plan.host):
                in_transaction(engine, partial(_import, plan, order))
        done(plan)


def _import(plan: HostPlan, order: audit.Order, connection: sa.Connection) -> None:
    claims = [
        {
            "id": str(claim.claim_id),
            "instance_id": claim.instance_id,
            "request": claim.request,
            "devices": claim.devices,
        }
        for claim in plan.claims
    ]
    facts = {
        "host": plan.host,
        "imported_at": plan.imported_at,
        "devices": json.dumps([asdict(device) for device in plan.devices]),
        "claims": json.dumps(claims),
        "withheld": json.dumps(plan.withheld),
    }
    connection.execute(_IMPORT, facts)
    audit.record(connection, order.who, "import-host", plan.host, order.reason)
