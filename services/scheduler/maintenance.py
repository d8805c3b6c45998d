"""Drain, undrain and remove hosts and ports. The functions are in common/db/sql/drain.sql."""

from __future__ import annotations

import logging

import sqlalchemy as sa

from portclaim.common.db import audit, outbox
from portclaim.common.db.sqlstate import as_errors
from portclaim.common.errors import ServiceUnavailable, UnknownHost
from portclaim.common.rpc.operator_messages import (
    Drain,
    LiveClaims,
    Removal,
    Renewal,
    Retried,
    Retry,
)

LOG = logging.getLogger(__name__)

_DRAIN_HOST = sa.text("SELECT drain_host(:host, :reason)")

_DRAIN_PORT = sa.text("SELECT drain_port(:host, :address, :reason)")

_REMOVE_HOST = sa.text("SELECT remove_host(:host, :agent_down_after, :reason, :force_cause)")


_SILENT_FOR = sa.text("""
    SELECT cast(extract(epoch FROM now() - last_seen) AS double precision)
      FROM compute_nodes WHERE host = :host
""")


def forced(who: str, reason: str) -> str:
    """The cause of a release by force, as a claim's history states it."""
    return f"released by force, by {who}: {reason}"


def drain(connection: sa.Connection, wanted: Drain) -> LiveClaims:
    """Drain a host or a port, or undrain it; answer how many live claims it has, which stay.

    Raises ``UnknownHost``, and ``InvalidRequest`` for an unknown port.
    """
    statement = _DRAIN_HOST if wanted.address is None else _DRAIN_PORT
    with as_errors(host=wanted.host):
        live = LiveClaims(live_claims=connection.scalar(statement, wanted.model_dump()))
    place = wanted.host if wanted.address is None else f"{wanted.host} {wanted.address}"
    action: audit.Action = "undrain" if wanted.reason is None else "drain"
    audit.record_once(connection, wanted.who, action, place, wanted.reason or wanted.undrain_reason)
    return live


def remove_host(connection: sa.Connection, wanted: Removal, agent_down_after: float) -> LiveClaims:
    """Remove a silent host; answer how many live claims were ended by force.

    Raises ``UnknownHost``, ``HostIsAlive``, ``HostInUse``.
    """
    facts = {
        "host": wanted.host,
        "agent_down_after": agent_down_after,
        "reason": f"removed by {wanted.who}: {wanted.reason}",
        "force_cause": forced(wanted.who, wanted.reason) if wanted.force else None,
    }
    with as_errors(host=wanted.host):
        ended = LiveClaims(live_claims=connection.scalar(_REMOVE_HOST, facts))
    audit.record_once(connection, wanted.who, "remove-host", wanted.host, wanted.reason)
    LOG.warning("host %s: %r; %s claims ended", wanted.host, facts["reason"], ended.live_claims)
    return ended


def check_agent(connection: sa.Connection, host: str, agent_down_after: float) -> None:
    """Raises ``UnknownHost``, and ``ServiceUnavailable`` if the host's agent is silent: it cannot answer."""
    silent_for = connection.scalar(_SILENT_FOR, {"host": host})
    if silent_for is None:
        raise UnknownHost(f"no agent has ever reported for host {host}", host=host)
    if silent_for > agent_down_after:
        raise ServiceUnavailable(f"the agent of host {host} is silent for {silent_for:.0f} s: start it first")


def record_renewal(connection: sa.Connection, wanted: Renewal) -> None:
    """Record that a device was renewed."""
    place = f"{wanted.host} {wanted.address}"
    audit.record_once(connection, wanted.who, "renew-device", place, wanted.reason)


def retry(connection: sa.Connection, wanted: Retry) -> Retried:
    """Make steps due now; answer how many."""
    steps = outbox.retry(connection, wanted.claim_ids, wanted.host)
    of = "parked steps" if wanted.claim_ids is None else ", ".join(map(str, wanted.claim_ids[:10]))
    place = "" if wanted.host is None else f" on {wanted.host}"
    audit.record(connection, wanted.who, "retry", f"{of}{place}: {steps} steps", wanted.reason)
    return Retried(steps=steps)
