"""Read how the fleet is, in numbers."""

from __future__ import annotations

import sqlalchemy as sa

from portclaim.common.rpc.operator_messages import StepFilter
from portclaim.common.rpc.summary_messages import (
    FleetSummary,
    PoolSummary,
    RefusedClaims,
    RefusedInMinute,
    SilentHost,
)
from portclaim.services.scheduler import lookups, summary_statements

_IN_PROGRESS = ["waiting", "claimed", "prepared", "releasing"]
_SLOWEST = 5


def summary(connection: sa.Connection, agent_down_after: float) -> FleetSummary:
    """The fleet, as far as it is known without reading devices or all claims."""
    facts = {
        "agent_down_after": agent_down_after,
        "most": summary_statements.MOST,
        "statuses": _IN_PROGRESS,
    }
    changes = connection.execute(summary_statements.CHANGES, facts).all()
    return FleetSummary(
        **connection.execute(summary_statements.HOSTS, facts).mappings().one(),
        **connection.execute(summary_statements.STEPS, facts).mappings().one(),
        silent_hosts=[
            SilentHost(**row) for row in connection.execute(summary_statements.SILENT_HOSTS, facts).mappings()
        ],
        pools=[PoolSummary(**row) for row in connection.execute(summary_statements.POOLS).mappings()],
        in_progress={
            row.status: row.claims for row in connection.execute(summary_statements.IN_PROGRESS, facts)
        },
        seconds=changes[0].seconds,
        changes={row.to_status: row.changes for row in changes if row.to_status is not None},
        refused=[RefusedClaims(**row) for row in connection.execute(summary_statements.REFUSED).mappings()],
        refused_by_minute=[
            RefusedInMinute(**lookups.as_fields(row))
            for row in connection.execute(summary_statements.REFUSED_BY_MINUTE).mappings()
        ],
        slowest_steps=lookups.awaited_steps(connection, StepFilter(limit=_SLOWEST)).steps,
    )
