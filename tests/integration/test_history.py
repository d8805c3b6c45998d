"""The history of ended claims stays in the database until it is pruned."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from portclaim.common.db.pruning import Pruning
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import at_once, wait_until
from tests.support.fleet import Fleet, Host
from tests.support.services import Services

QUARTER = timedelta(days=90)


@pytest.fixture(autouse=True)
def host(fleet: Fleet) -> Host:
    """Four ports with eight VFs each."""
    return fleet.host("h1", ports=4, vfs=8)


def ended(fleet: Fleet, host: Host, days_ago: int) -> Claim:
    claim = fleet.claim("nic-vf:1")
    host.done(fleet.release(claim))
    fleet.sql(
        "UPDATE claims SET updated_at = now() - make_interval(days => :days) WHERE id = :id",
        days=days_ago,
        id=claim.claim_id,
    )
    return claim


def known(fleet: Fleet) -> set[object]:
    """The ids of the claims in the database. Checks that no claim was deleted only in part."""
    [(claims, with_events, with_devices)] = fleet.sql(
        "SELECT ARRAY(SELECT id FROM claims), ARRAY(SELECT claim_id FROM claim_events),"
        " ARRAY(SELECT claim_id FROM claim_devices)"
    )
    assert set(claims) == set(with_events) == set(with_devices)
    return set(claims)


def prune(fleet: Fleet, size: int = 1000) -> int:
    pruning = Pruning(fleet.engine, QUARTER, size)
    while pruning.work():
        continue
    return pruning.pruned


@pytest.mark.parametrize("size", [1, 2, 3, 4, 1000])
def test_pruning_deletes_only_claims_that_ended_long_ago(fleet: Fleet, host: Host, size: int) -> None:
    old = [ended(fleet, host, days_ago=91) for _ in range(3)]
    young = ended(fleet, host, days_ago=89)
    live = fleet.claim("nic-vf:1")
    fleet.sql("UPDATE claims SET updated_at = '2000-01-01' WHERE live")
    assert prune(fleet, size) == len(old)
    assert known(fleet) == {young.claim_id, live.claim_id}
    before = fleet.contents()
    assert prune(fleet, size) == 0
    assert fleet.contents() == before


def test_concurrent_pruning_is_safe(fleet: Fleet, host: Host) -> None:
    for _ in range(20):
        ended(fleet, host, days_ago=91)
    assert sum(at_once([lambda: prune(fleet, size=3)] * 4)) == 20
    assert known(fleet) == set()


def test_pruning_does_not_wait_for_locks(fleet: Fleet, host: Host) -> None:
    locked, _ = (ended(fleet, host, days_ago=91) for _ in range(2))
    with fleet.engine.begin() as connection:
        connection.execute(sa.text("SELECT FROM claims WHERE id = :id FOR UPDATE"), {"id": locked.claim_id})
        assert prune(fleet) == 1
    assert known(fleet) == {locked.claim_id}
    assert prune(fleet) == 1


def test_the_id_of_a_pruned_claim_can_be_used_again(fleet: Fleet, host: Host) -> None:
    claim = ended(fleet, host, days_ago=91)
    prune(fleet)
    assert fleet.claim("nic-pf:1", claim_id=claim.claim_id).status == "claimed"


def test_a_conductor_prunes_if_it_is_configured_to(
    fleet: Fleet, host: Host, service_process: Services
) -> None:
    ended(fleet, host, days_ago=91)
    young = ended(fleet, host, days_ago=89)
    service_process("conductor", {"conductor": {"prune_after": 90}})
    wait_until(lambda: known(fleet) == {young.claim_id}, "the old claim is pruned")
