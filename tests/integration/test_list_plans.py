"""A page of a list costs as much in a large fleet as in a small one, whatever the filter leaves.

See test_plans for the fleets, and for how costs are counted.
"""

from typing import Any
from uuid import uuid4

import pytest

from portclaim.common.rpc.claim_messages import DeviceFilter
from portclaim.common.rpc.history_messages import HistoryFilter
from portclaim.common.rpc.operator_messages import ClaimFilter, HostFilter, StepFilter, WaitingFilter
from tests.integration.test_plans import Call, Operation, cost, large, most, small
from tests.support.fleet import Fleet

__all__ = ["large", "small"]


def page_of_devices(**wanted: Any) -> Operation:
    return lambda fleet: lambda: fleet.scheduler.devices(DeviceFilter(limit=20, **wanted))


def page_of_hosts(**wanted: Any) -> Operation:
    return lambda fleet: lambda: fleet.scheduler.hosts(HostFilter(limit=20, **wanted))


def page_of_claims(**wanted: Any) -> Operation:
    return lambda fleet: lambda: fleet.scheduler.claims(ClaimFilter(limit=20, **wanted))


def second_page_of_hosts(fleet: Fleet) -> Call:
    after = fleet.scheduler.hosts(HostFilter(limit=20)).after
    return lambda: fleet.scheduler.hosts(HostFilter(limit=20, after=after))


def second_page_of_claims(fleet: Fleet) -> Call:
    after = fleet.scheduler.claims(ClaimFilter(limit=20)).after
    return lambda: fleet.scheduler.claims(ClaimFilter(limit=20, after=after))


def claims_of_an_instance(fleet: Fleet) -> Call:
    instance_id = fleet.claim("nic-vf:1").instance_id
    return lambda: fleet.scheduler.claims(ClaimFilter(instance_id=instance_id))


def devices_of_a_claim(fleet: Fleet) -> Call:
    claim = fleet.claim("nic-vf:3")
    return lambda: fleet.scheduler.devices(DeviceFilter(claim_id=claim.claim_id))


def steps_of_a_host(fleet: Fleet) -> Call:
    return lambda: fleet.scheduler.awaited_steps(StepFilter(host="host-1"))


def parked_steps(fleet: Fleet) -> Call:
    return lambda: fleet.scheduler.awaited_steps(StepFilter(parked=True))


def history_of_a_claim(fleet: Fleet) -> Call:
    claim = fleet.claim("nic-vf:3")
    return lambda: fleet.scheduler.history(HistoryFilter(claim_id=claim.claim_id))


def history_of_a_host(fleet: Fleet) -> Call:
    return lambda: fleet.scheduler.history(HistoryFilter(host="host-1"))


OPERATIONS: dict[str, Operation] = {
    "history of a claim": history_of_a_claim,
    "history of a host": history_of_a_host,
    "devices of a claim": devices_of_a_claim,
    "page of devices": page_of_devices(),
    "page of PFs": page_of_devices(dev_type="type-PF"),
    "page of available devices": page_of_devices(status="available"),
    "page of allocated devices of a product": page_of_devices(status="allocated", product_id="154c"),
    "page of hosts": page_of_hosts(),
    "second page of hosts": second_page_of_hosts,
    "page of hosts that are up": page_of_hosts(is_silent=False, is_drained=False),
    "page of claims": page_of_claims(),
    "second page of claims": second_page_of_claims,
    "page of claims in a status": page_of_claims(statuses=["claimed"]),
    "page of young claims": page_of_claims(newer_than=3600),
    "claims in a status that none has": page_of_claims(statuses=["failed"]),
    "claims older than any": page_of_claims(older_than=10**8),
    "claims of a host": page_of_claims(host="host-1"),
    "claims of a host that have ended": page_of_claims(host="host-1", statuses=["released"]),
    "claims of an instance": claims_of_an_instance,
    "steps of a host": steps_of_a_host,
    "parked steps": parked_steps,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_page_costs_the_same_in_a_fleet_ten_times_as_large(small: Fleet, large: Fleet, name: str) -> None:
    in_small, in_large = cost(small, OPERATIONS[name]), cost(large, OPERATIONS[name])
    assert 0 < in_large <= most(in_small)
    assert in_small <= most(in_large), "the fleets use different plans"


@pytest.mark.parametrize(
    ("index", "name"),
    [
        ("outbox_due", "parked steps"),
        ("claims_by_status", "page of claims"),
        ("claims_by_instance", "claims of an instance"),
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


def test_a_filter_that_no_device_passes_costs_what_the_ports_number(small: Fleet) -> None:
    """And not what the devices number: each port has eight VFs."""
    [(ports,)] = small.sql("SELECT count(*) FROM pci_devices WHERE parent_id IS NULL")
    for wanted in ({"status": "removed"}, {"product_id": "ffff"}, {"dev_type": "type-PCI"}):
        assert 0 < cost(small, page_of_devices(**wanted)) < 5 * ports


def test_a_page_of_a_long_queue_costs_the_same_as_of_a_short_one(small: Fleet, large: Fleet) -> None:
    """It counts the positions of the claims on the page, and of no claims behind them."""
    costs = []
    for fleet, count in ((small, 100), (large, 2000)):
        waits = [fleet.claim("nic-vf:9", wait=600) for _ in range(3)]
        fleet.sql(
            "INSERT INTO claims (id, instance_id, status, request)"
            " SELECT gen_random_uuid(), :instance, 'waiting', request FROM claims, generate_series(1, :count)"
            " WHERE id = :like",
            instance=(instance := uuid4()),
            count=count,
            like=waits[0].claim_id,
        )
        fleet.sql(
            "INSERT INTO waiting_claims (id, requests, deadline)"
            " SELECT id, queue_key(request), now() + interval '1 hour' FROM claims"
            " WHERE instance_id = :instance",
            instance=instance,
        )
        fleet.sql("ANALYZE waiting_claims")
        costs.append(cost(fleet, lambda fleet: lambda: fleet.scheduler.waiting(WaitingFilter(limit=20))))
        fleet.sql("DELETE FROM waiting_claims")
        fleet.sql("DELETE FROM claim_events WHERE to_status = 'waiting'")
        fleet.sql("DELETE FROM claims WHERE status = 'waiting'")
    of_short, of_long = costs
    assert 0 < of_long <= most(of_short)
