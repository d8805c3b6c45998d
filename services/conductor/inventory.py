"""Apply an agent's inventory report, in one transaction and one round trip."""

from __future__ import annotations

import sqlalchemy as sa
from pydantic import TypeAdapter

from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.db.sqlstate import as_errors
from portclaim.common.rpc.agent_messages import DeviceReport, InventoryAnswer, InventoryReport, NumaCell

_REPORT = PreparedStatement(
    "report_inventory",
    """
    SELECT report_inventory(:host::text, :agent_id::uuid, :agent_down_after::double precision, :digest::text,
                            :base_digest::text, :devices::jsonb, :removed::text[], :numa_cells::jsonb)
    """,
)

_SIGNED_REPORT = PreparedStatement(
    "report_signed_inventory",
    """
    SELECT report_signed_inventory(:host::text, :agent_id::uuid, :agent_down_after::double precision,
                                   :digest::text, :base_digest::text, :devices::jsonb, :removed::text[],
                                   :numa_cells::jsonb, :number::bigint)
    """,
)

_DEVICES = TypeAdapter(list[DeviceReport])
_NUMA_CELLS = TypeAdapter(list[NumaCell])


def apply(
    engine: sa.Engine, report: InventoryReport, agent_down_after: float, number: int | None = None
) -> InventoryAnswer:
    """Make the database agree with the report. An unchanged report writes nothing but ``last_seen``.

    ``number`` is that of its signature, if it has one. Raises :class:`HostOwnedByAnotherAgent` while another
    agent of this host is alive, and :class:`NotAuthorized` if a later report was recorded before.
    """
    facts = {
        "host": report.host,
        "agent_id": str(report.agent_id),
        "agent_down_after": agent_down_after,
        "digest": report.digest,
        "base_digest": report.base_digest,
        "devices": None if report.devices is None else _DEVICES.dump_json(report.devices).decode(),
        "removed": report.removed,
        "numa_cells": _NUMA_CELLS.dump_json(report.numa_cells).decode(),
        "number": number,
    }
    statement = _REPORT if number is None else _SIGNED_REPORT
    with as_errors(host=report.host):
        return InventoryAnswer(resend=statement.value(engine, facts))
