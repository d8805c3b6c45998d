"""The hosts and their agents, steps that nobody answers, events and queues."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from portclaim.cli.doctor.finding import Finding, ok, several, trouble, warning
from portclaim.common.errors import PortclaimError, UnsupportedVersion

if TYPE_CHECKING:
    from portclaim.cli.session import Session
    from portclaim.common.rpc.compute_agent import ComputeAgentClient

_AT_ONCE = 16
_CLOCK = 2.0  # seconds that a clock may be off
_OVERDUE = 60.0  # seconds
_MOST = 1000

_HOSTS = sa.text("""
    SELECT host, disabled_reason IS NOT NULL AS drained,
           last_seen < now() - make_interval(secs => :agent_down_after) AS silent
      FROM compute_nodes ORDER BY host
""")
_STEPS = sa.text("""
    SELECT o.claim_id::text AS claim, n.host, o.action, o.send_after = 'infinity' AS parked,
           o.send_after < now() - make_interval(secs => :overdue) AS unsent, o.sends,
           o.created_at < now() - make_interval(secs => :overdue) AS overdue
      FROM (SELECT * FROM outbox ORDER BY send_after LIMIT :most) o
      JOIN claims c ON c.id = o.claim_id
      JOIN compute_nodes n ON n.id = c.compute_node_id
""")
_EVENTS = sa.text("""
    SELECT kind, unpublished, cast(extract(epoch FROM oldest_waits_for) AS double precision) AS oldest
      FROM event_backlog
""")
_OVERDUE_WAITING = sa.text("SELECT count(*) FROM waiting_claims WHERE deadline < now() - interval '1 min'")


def check(connection: sa.Connection, session: Session) -> Iterator[Finding]:
    from portclaim.common.events import broker

    down_after = session.conf.conductor.agent_down_after
    hosts = connection.execute(_HOSTS, {"agent_down_after": down_after}).all()
    silent = [row.host for row in hosts if row.silent and not row.drained]
    up = [row.host for row in hosts if not row.silent]
    yield of_hosts(len(hosts), len(up), len(silent), silent)
    if not broker.is_within_this_process(session.conf):
        yield from _agents(session, up)
    yield from _steps(connection)
    yield from _background(connection)


def of_hosts(hosts: int, up: int, silent: int, names: list[str]) -> Finding:
    """How many hosts there are, are up, and are silent though they are not drained: the names of some."""
    if silent:
        make = warning if up > 0 else trouble
        return make(
            "agents",
            f"{silent} of {hosts} hosts are silent: {several(names, silent)}",
            "see whether the host runs, and start its agent: systemctl restart portclaim-compute-agent. If a "
            "host will not come back, switch it off, then: portclaim host remove HOST --reason WHY",
        )
    if hosts:
        return ok("agents", f"{up} of {hosts} hosts are up, and none of the others takes claims")
    return warning("agents", "no host has ever reported", "start an agent: portclaim-compute-agent")


class _Told(NamedTuple):
    """What an agent says of itself. ``clock``: by how many seconds it is ahead."""

    host: str
    fault: str | None = None
    release: str = ""
    clock: float = 0.0


def _agents(session: Session, hosts: list[str]) -> Iterator[Finding]:
    if not hosts:
        return
    from portclaim.common.rpc.compute_agent import ComputeAgentClient

    client = session.client(ComputeAgentClient)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        told = list(threads.map(lambda host: _ask(client, host), hosts))
    if mute := [each for each in told if each.fault is not None]:
        yield warning(
            "agents",
            f"agents that report, but do not answer: {several([each.host for each in mute])} "
            f"({mute[0].fault})",
            "read the agent's log on the host: journalctl -u portclaim-compute-agent",
        )
    answered = [each for each in told if each.fault is None]
    if old := [f"{each.host} ({each.release})" for each in answered if each.release != version("portclaim")]:
        yield warning(
            "agents",
            f"agents of another release than {version('portclaim')}: {several(old)}",
            "finish the upgrade of the hosts",
        )
    if off := [f"{each.host} ({each.clock:+.1f} s)" for each in answered if abs(each.clock) > _CLOCK]:
        yield warning(
            "clocks", f"clocks that are off: {several(off)}", "have chrony or ntpd run on these hosts"
        )
    elif answered:
        yield ok("clocks", f"those of {len(answered)} hosts agree with this one")


def _ask(client: ComputeAgentClient, host: str) -> _Told:
    begun, asked = time.monotonic(), time.time()
    try:
        about = client.at(host).about()
    except UnsupportedVersion:
        return _Told(host, release="0.2.0 or older")
    except PortclaimError as error:
        return _Told(host, fault=error.message)
    took = time.monotonic() - begun
    # The agent has read its clock at some moment in between.
    ahead = about.clock - asked - took / 2
    return _Told(host, release=about.release, clock=0.0 if abs(ahead) <= took / 2 else ahead)


def _steps(connection: sa.Connection) -> Iterator[Finding]:
    steps = connection.execute(_STEPS, {"overdue": _OVERDUE, "most": _MOST}).all()
    if unsent := [row.claim for row in steps if row.unsent]:
        yield trouble(
            "steps",
            f"{len(unsent)} steps should have been sent a minute ago: of claims {several(unsent, most=3)}",
            "no conductor sends steps: systemctl restart portclaim-conductor, and read its log",
        )
    if parked := [row.claim for row in steps if row.parked]:
        yield of_parked(len(parked), parked)
    if late := [f"{row.claim} on {row.host}" for row in steps if row.overdue and not row.parked]:
        yield of_late(late)
    if not unsent and not parked and not late:
        yield of_steps(len(steps))


def of_parked(number: int, claims: list[str]) -> Finding:
    return trouble(
        "steps",
        f"{number} steps are no longer sent: of claims {several(claims, number, 3)}",
        "portclaim outbox list --parked says why. Mend it, then: portclaim outbox retry CLAIM_ID",
    )


def of_late(claims: list[str]) -> Finding:
    return warning(
        "steps",
        f"{len(claims)} steps were not answered for a minute: of claims {several(claims, most=3)}",
        "they are sent again by themselves. portclaim describe claim CLAIM_ID says more",
    )


def of_steps(number: int) -> Finding:
    return ok("steps", f"agents work on {number}" if number else "agents have answered all")


def _background(connection: sa.Connection) -> Iterator[Finding]:
    late = [row for row in connection.execute(_EVENTS) if (row.oldest or 0) > _OVERDUE]
    for row in late:
        yield warning(
            "events",
            f"{row.unpublished} events of {row.kind}s wait for {row.oldest:.0f} s to be published",
            "see whether a conductor runs with [conductor] publish_events, and whether the broker takes them",
        )
    if not late:
        yield ok("events", "all are published")
    yield of_queues(connection.scalar(_OVERDUE_WAITING) or 0)


def of_queues(overdue: int) -> Finding:
    if overdue:
        return trouble(
            "queues",
            f"{overdue} waiting claims are past their deadline",
            "no scheduler serves the queues: systemctl restart portclaim-scheduler, and read its log",
        )
    return ok("queues", "no waiting claim is past its deadline")
