"""The SQL of the services costs as much in a large fleet as in a small one.

The tests count the buffers of tables and indexes that a call touches up to its commit, including those for
foreign keys. They do not measure seconds, which depend on the machine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from portclaim.common.db import quotas
from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.agent_messages import InventoryReport, StepResult
from portclaim.common.rpc.claim_messages import DeviceFilter
from tests.support import postgresql
from tests.support.fleet import Fleet
from tests.support.straight_fleet import AGENT, DIGEST, Size, build

SMALL = Size(hosts=60, ports=8, vfs=8)
LARGE = SMALL._replace(hosts=10 * SMALL.hosts)


@contextmanager
def fleet_of(size: Size) -> Iterator[Fleet]:
    url = postgresql.create_database()
    fleet = Fleet(url)
    build(fleet.engine, size)
    # Vacuum would touch buffers too, at any time.
    for (table,) in fleet.sql("SELECT relname FROM pg_stat_user_tables"):
        fleet.sql(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    yield fleet
    fleet.close()
    postgresql.drop_database(url)


@pytest.fixture(scope="module")
def small() -> Iterator[Fleet]:
    with fleet_of(SMALL) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def large() -> Iterator[Fleet]:
    with fleet_of(LARGE) as fleet:
        yield fleet


# Prepares an operation and returns the call to be measured.
Call = Callable[[], object]
Operation = Callable[[Fleet], Call]


def claim_of(alias: str) -> Operation:
    return lambda fleet: lambda: fleet.claim(alias)


def claim_of_project(alias: str, *, quota: bool) -> Operation:
    """A claim of a project that has many others. Its quota costs a few buffers, however many."""

    def operation(fleet: Fleet) -> Call:
        project = f"project-{uuid4()}"
        for number in range(40, 50):
            fleet.claim(alias, project=project, hosts=[f"host-{number}"])
        if quota:
            with fleet.engine.begin() as connection:
                quotas.set_quota(connection, project, None, quotas.Limits(max_vfs=10_000))
        return lambda: fleet.claim(alias, project=project)

    return operation


def claim_on_hosts(alias: str) -> Operation:
    """A claim on hosts that come last in every order."""

    def operation(fleet: Fleet) -> Call:
        last = [host for (host,) in fleet.sql("SELECT host FROM compute_nodes ORDER BY id DESC LIMIT 3")]
        return lambda: fleet.claim(alias, hosts=last)

    return operation


def refusal_of(alias: str, **facts: Any) -> Operation:
    """A refused claim. Its explanation is at hand, as it is when the same is asked often."""

    def operation(fleet: Fleet) -> Call:
        def refused() -> None:
            with pytest.raises(ClaimRefused):
                fleet.claim(alias, **facts)

        fleet.count_hosts()
        refused()
        return refused

    return operation


def candidates_for(alias: str, hosts: list[str] | None = None) -> Operation:
    return lambda fleet: lambda: fleet.candidates(alias, hosts)


def repetition_of_a_claim(fleet: Fleet) -> Call:
    claim = fleet.claim("nic-vf:1")
    return lambda: fleet.claim("nic-vf:1", claim.claim_id, claim.instance_id)


def release(fleet: Fleet) -> Call:
    claim = fleet.claim("nic-vf:1")
    return lambda: fleet.release(claim)


def answer(alias: str, action: str, outcome: str) -> Operation:
    def operation(fleet: Fleet) -> Call:
        claim = fleet.claim(alias)
        if action == "detach":
            claim = fleet.release(claim)
        result = StepResult(
            host=claim.host,
            agent_id=AGENT,
            claim_id=claim.claim_id,
            step=claim.step,
            outcome=outcome,  # type: ignore[arg-type]
        )
        return lambda: fleet.conductor.step_done(result)

    return operation


def sign_of_life(fleet: Fleet) -> Call:
    report = InventoryReport(host="host-1", agent_id=AGENT, digest=DIGEST)
    return lambda: fleet.conductor.report_inventory(report)


def poll_of_the_relay(fleet: Fleet) -> Call:
    fleet.sql(
        "UPDATE outbox SET send_after = now() + interval '1 day' WHERE send_after < now() + interval '1 hour'"
    )
    return fleet.relay().send_due


def look_at_the_queues(fleet: Fleet) -> Call:
    return fleet.queues.work


def step_sent_again(fleet: Fleet) -> Call:
    claim = fleet.claim("nic-vf:1")
    fleet.sql("UPDATE outbox SET send_after = now() WHERE claim_id = :id", id=claim.claim_id)
    return fleet.relay().send_due


def look_at_a_claim(fleet: Fleet) -> Call:
    claim = fleet.claim("nic-vf:1")
    return lambda: fleet.show(claim)


def devices_of_a_host(fleet: Fleet) -> Call:
    return lambda: fleet.scheduler.devices(DeviceFilter(host="host-1"))


def holdings_of_a_host(fleet: Fleet) -> Call:
    return lambda: fleet.conductor.holdings("host-1", AGENT)


OPERATIONS = {
    "claim of a VF": claim_of("nic-vf:1"),
    "claim of VFs": claim_of("nic-vf:3"),
    "claim of a project": claim_of_project("nic-vf:1", quota=False),
    "claim of a project with a quota": claim_of_project("nic-vf:1", quota=True),
    "claim of a PF": claim_of("nic-pf:1"),
    "claim of a VF on hosts": claim_on_hosts("nic-vf:1"),
    "claim of a PF on hosts": claim_on_hosts("nic-pf:1"),
    "claim of both": claim_of("nic-pf:1,nic-vf:1"),
    "claim of both on hosts": claim_on_hosts("nic-pf:1,nic-vf:1"),
    "refusal of too many VFs": refusal_of("nic-vf:63"),
    "refusal of too many PFs": refusal_of("nic-pf:9"),
    "refusal of both": refusal_of("nic-pf:8,nic-vf:1"),
    "refusal of a kind that no host has": refusal_of("nic-vf:1,gpu:1"),
    "refusal of VFs of one NUMA node": refusal_of("nic-vf:33", numa_cells=[0]),
    "refusal of VFs of different ports": refusal_of("nic-vf:9", group_policy="isolate"),
    "refusal on hosts": refusal_of("nic-vf:63", hosts=["host-1", "host-2"]),
    "refusal on other hosts": refusal_of("nic-vf:63", avoid_hosts=["host-1", "host-2"]),
    "candidates for a VF": candidates_for("nic-vf:1"),
    "candidates for a PF": candidates_for("nic-pf:1"),
    "candidates for both": candidates_for("nic-pf:1,nic-vf:1"),
    "candidates for VFs of several ports": candidates_for("nic-vf:9"),
    "candidates among hosts": candidates_for("nic-vf:1", [f"host-{n}" for n in range(1, 60, 2)]),
    "candidates among many hosts": candidates_for("nic-vf:1", [f"host-{n}" for n in range(1, 400)]),
    "repetition of a claim": repetition_of_a_claim,
    "look at a claim": look_at_a_claim,
    "VF attached": answer("nic-vf:1", "attach", "done"),
    "VF not attached": answer("nic-vf:1", "attach", "failed"),
    "PF attached": answer("nic-pf:1", "attach", "done"),
    "release": release,
    "VF detached": answer("nic-vf:1", "detach", "done"),
    "PF detached": answer("nic-pf:1", "detach", "done"),
    "sign of life": sign_of_life,
    "holdings of a host": holdings_of_a_host,
    "devices of a host": devices_of_a_host,
    "poll of the relay": poll_of_the_relay,
    "look at the queues": look_at_the_queues,
    "step sent again": step_sent_again,
}


def touched(fleet: Fleet) -> int:
    """The buffers touched so far in this database."""
    fleet.sql("SELECT pg_stat_force_next_flush()")
    [(buffers,)] = fleet.sql("""
        SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0)
                   + coalesce(toast_blks_read + toast_blks_hit + tidx_blks_read + tidx_blks_hit, 0))
          FROM pg_statio_user_tables
    """)
    return int(buffers)


def cost(fleet: Fleet, operation: Operation, calls: int = 4) -> int:
    """The buffers that the cheapest of a few calls touches: some calls also split or clean a page."""
    costs = []
    for _ in range(calls):
        call = operation(fleet)
        before = touched(fleet)
        call()
        costs.append(touched(fleet) - before)
    return min(costs)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_costs_the_same_in_a_fleet_ten_times_as_large(
    small: Fleet, large: Fleet, name: str
) -> None:
    in_small, in_large = cost(small, OPERATIONS[name]), cost(large, OPERATIONS[name])
    assert 0 < in_large <= most(in_small)
    assert in_small <= most(in_large), "the fleets use different plans"


def most(cost_elsewhere: int) -> float:
    """The highest cost allowed in the other fleet, whose indexes are deeper or whose hosts are fuller."""
    return 1.5 * cost_elsewhere + 5


@pytest.mark.parametrize(
    ("index", "name"),
    [
        ("port_pools_by_room", "claim of a VF"),
        ("pci_devices_whole", "claim of a PF"),
        ("pci_devices_by_parent", "VF detached"),
        ("outbox_due", "poll of the relay"),
    ],
)
def test_a_missing_index_would_be_noticed(small: Fleet, large: Fleet, index: str, name: str) -> None:
    [(definition,)] = small.sql("SELECT pg_get_indexdef(cast(:index AS regclass))", index=index)
    for fleet in (small, large):
        fleet.sql(f"DROP INDEX {index}")
    try:
        assert cost(large, OPERATIONS[name]) > most(cost(small, OPERATIONS[name]))
    finally:
        for fleet in (small, large):
            fleet.sql(definition)


def test_a_project_without_a_quota_costs_next_to_nothing(small: Fleet) -> None:
    without = cost(small, OPERATIONS["claim of a VF"])
    assert cost(small, OPERATIONS["claim of a project"], calls=12) <= without + 8
    assert cost(small, OPERATIONS["claim of a project with a quota"], calls=12) <= without + 24
