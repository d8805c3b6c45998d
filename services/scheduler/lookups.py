"""Read one claim, or devices, hosts, queues and steps as operators see them."""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa

from portclaim.common.errors import ClaimNotFound
from portclaim.common.rpc.claim_messages import Claim, Device, DeviceFilter, Devices
from portclaim.common.rpc.operator_messages import (
    AwaitedStep,
    AwaitedSteps,
    HostFilter,
    Hosts,
    HostSummary,
    StepFilter,
    WaitingClaim,
    WaitingClaims,
    WaitingFilter,
)

_CLAIM = sa.text("""
    SELECT (claim_as_json(:claim_id)::jsonb || jsonb_build_object('move', (
            SELECT jsonb_build_object('source_claim_id', source_claim_id, 'target_claim_id', target_claim_id,
                                      'status', status, 'reason', reason)
              FROM claim_moves
             WHERE cast(:claim_id AS uuid) IN (source_claim_id, target_claim_id)
             ORDER BY begun_at DESC, live DESC LIMIT 1)))::text
""")

_DEVICES = sa.text("""
    SELECT host, port, address, dev_type, vendor_id, product_id, numa_node, status, effective_status,
           reason, claim_id, instance_id, tags
      FROM pf_vf_tree
     WHERE (cast(:host AS text) IS NULL OR host = :host)
       AND (cast(:dev_type AS text) IS NULL OR dev_type = :dev_type)
       AND (cast(:claim_id AS uuid) IS NULL OR claim_id = :claim_id)
       AND CASE WHEN cast(:status AS text) IS NULL THEN effective_status <> 'removed'
                ELSE effective_status = :status END
     ORDER BY host, port, dev_type = 'type-VF', address
     LIMIT :limit + 1
""")

_HOSTS = sa.text("""
    SELECT host, cast(extract(epoch FROM agent_silent_for) AS double precision) AS agent_silent_for,
           agent_silent_for > make_interval(secs => :agent_down_after) AS is_silent,
           drained_reason, drained_ports, devices, available,
           pfs_available, pfs_held, vfs_available, vfs_held, live_claims
      FROM hosts
     WHERE cast(:host AS text) IS NULL OR host = :host
     ORDER BY host
     LIMIT :limit + 1
""")

_AWAITED_STEPS = sa.text("""
    SELECT host, claim_id, instance_id, step, action, parked, times_sent,
           cast(extract(epoch FROM awaited_for) AS double precision) AS awaited_for,
           cast(extract(epoch FROM agent_silent_for) AS double precision) AS agent_silent_for,
           last_failure
      FROM awaited_steps
     WHERE (cast(:host AS text) IS NULL OR host = :host) AND (parked OR NOT :parked)
     ORDER BY awaited_for DESC, claim_id
     LIMIT :limit + 1
""")


_WAITING = sa.text("""
    SELECT claim_id, instance_id, position, alias, requests,
           cast(extract(epoch FROM waited) AS double precision) AS waited,
           cast(extract(epoch FROM expires_in) AS double precision) AS expires_in,
           reserved_host, coalesce(reserved_ports, '{}') AS reserved_ports
      FROM waiting
     WHERE (cast(:claim_id AS uuid) IS NULL OR claim_id = :claim_id)
     ORDER BY waited DESC, position, claim_id
     LIMIT :limit + 1
""")


def claim(connection: sa.Connection, claim_id: UUID) -> Claim:
    """The claim as it stands, with its latest move. Raises :class:`ClaimNotFound`."""
    found = connection.scalar(_CLAIM, {"claim_id": claim_id})
    if found is None:
        raise ClaimNotFound(f"there is no claim {claim_id}", claim_id=str(claim_id))
    return Claim.model_validate_json(found, extra="ignore")


def devices(connection: sa.Connection, wanted: DeviceFilter) -> Devices:
    """The devices that fit the filter; removed ones only if asked for by that status."""
    rows = connection.execute(_DEVICES, wanted.model_dump()).mappings().all()
    shown = [Device.model_validate(dict(row)) for row in rows[: wanted.limit]]
    return Devices(devices=shown, more=len(rows) > wanted.limit)


def hosts(connection: sa.Connection, wanted: HostFilter, agent_down_after: float) -> Hosts:
    """The hosts in the order of their names, those included that have been removed."""
    facts = wanted.model_dump() | {"agent_down_after": agent_down_after}
    rows = connection.execute(_HOSTS, facts).mappings().all()
    shown = [HostSummary.model_validate(dict(row)) for row in rows[: wanted.limit]]
    return Hosts(hosts=shown, more=len(rows) > wanted.limit)


def awaited_steps(connection: sa.Connection, wanted: StepFilter) -> AwaitedSteps:
    """The steps that agents have not answered, the longest awaited first."""
    rows = connection.execute(_AWAITED_STEPS, wanted.model_dump()).mappings().all()
    shown = [AwaitedStep.model_validate(dict(row)) for row in rows[: wanted.limit]]
    return AwaitedSteps(steps=shown, more=len(rows) > wanted.limit)


def waiting(connection: sa.Connection, wanted: WaitingFilter) -> WaitingClaims:
    """The claims that wait, those that came first before the others."""
    rows = connection.execute(_WAITING, wanted.model_dump()).mappings().all()
    shown = [WaitingClaim.model_validate(dict(row)) for row in rows[: wanted.limit]]
    return WaitingClaims(claims=shown, more=len(rows) > wanted.limit)
