"""Steps that nobody ever answers: parked after so many sends, shown, and sent again when somebody says so."""

import threading
from uuid import uuid4

import pytest

from portclaim.common.db import outbox
from portclaim.common.db.listener import NotificationListener
from portclaim.common.periodic import Periodic
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.operator_messages import AwaitedStep, StepFilter
from tests.support.concurrency import LONG, wait_until, wait_until_listening
from tests.support.fleet import Fleet, Host


@pytest.fixture(autouse=True)
def host(fleet: Fleet) -> Host:
    """One port with four VFs."""
    return fleet.host("h1", ports=1, vfs=4)


def pass_by(fleet: Fleet, times: int, max_sends: int = 3) -> None:
    """Let everything that is not parked be due, and a relay pass by, so many times."""
    for _ in range(times):
        fleet.sql("UPDATE outbox SET send_after = now() WHERE send_after < 'infinity'")
        fleet.relay(max_sends=max_sends).send_due()


def awaited(fleet: Fleet, *, parked: bool = False, host: str | None = None) -> list[AwaitedStep]:
    return fleet.scheduler.awaited_steps(StepFilter(host=host, parked=parked)).steps


def parked_claim(fleet: Fleet) -> Claim:
    claim = fleet.claim("nic-vf:1")
    pass_by(fleet, 5)
    fleet.sent.clear()
    return claim


def test_one_is_sent_so_many_times_and_then_parked(fleet: Fleet) -> None:
    claim = fleet.claim("nic-vf:1")
    pass_by(fleet, 1)
    assert [step.parked for step in awaited(fleet)] == [False]
    pass_by(fleet, 5)
    assert len(fleet.sent) == 3, "one by the claim, two by the relay"
    [step] = awaited(fleet, parked=True)
    assert (step.claim_id, step.host, step.action, step.times_sent) == (claim.claim_id, "h1", "attach", 3)
    assert fleet.show(claim).status == "claimed", "nothing is freed by itself"


def test_it_shows_what_went_wrong(fleet: Fleet, host: Host) -> None:
    claim = fleet.claim("nic-vf:1")
    host.done(claim)
    fleet.release(claim)
    host.failed(claim, "the guest does not let go")
    pass_by(fleet, 5)
    [step] = awaited(fleet, parked=True)
    assert (step.action, step.last_failure) == ("detach", "the guest does not let go")


def test_a_parked_one_can_be_answered_released_and_found_by_its_agent(fleet: Fleet, host: Host) -> None:
    claim = parked_claim(fleet)
    assert [holding.claim_id for holding in host.holdings()] == [claim.claim_id]
    host.done(claim)
    assert (fleet.show(claim).status, awaited(fleet)) == ("allocated", [])
    other = parked_claim(fleet)
    fleet.release(other)
    assert [step.parked for step in awaited(fleet)] == [False], "the detach is a step of its own"


def test_said_again_it_is_sent_as_if_for_the_first_time(fleet: Fleet) -> None:
    claim, other = parked_claim(fleet), parked_claim(fleet)
    assert fleet.scheduler.retry([claim.claim_id]) == 1
    fleet.relay(max_sends=3).send_due()
    assert [step.claim_id for _, step in fleet.sent] == [claim.claim_id]
    assert [step.claim_id for step in awaited(fleet, parked=True)] == [other.claim_id]
    pass_by(fleet, 5)
    assert len(awaited(fleet, parked=True)) == 2


def test_all_that_are_parked_can_be_sent_again_of_one_host_or_of_all(fleet: Fleet) -> None:
    fleet.host("h2", ports=1, vfs=2)
    fleet.claim("nic-vf:1", hosts=["h1"])
    fleet.claim("nic-vf:1", hosts=["h2"])
    pass_by(fleet, 5)
    waiting = fleet.claim("nic-vf:1", hosts=["h2"])
    assert fleet.scheduler.retry(host="h2") == 1
    assert fleet.scheduler.retry() == 1
    assert fleet.scheduler.retry() == 0
    assert fleet.scheduler.retry([waiting.claim_id], host="h1") == 0
    assert fleet.scheduler.retry([uuid4()]) == 0


def test_a_relay_is_woken_at_once(fleet: Fleet) -> None:
    claim = parked_claim(fleet)
    relay = Periodic("relay", fleet.relay().work, pause=LONG * 10)
    listener = NotificationListener(fleet.engine, outbox.CHANNEL, relay.wake)
    try:
        relay.start()
        listener.start()
        wait_until_listening(fleet.engine, outbox.CHANNEL)
        fleet.scheduler.retry([claim.claim_id])
        wait_until(lambda: fleet.sent, "the step is sent")
        assert [step.claim_id for _, step in fleet.sent] == [claim.claim_id]
    finally:
        listener.end()
        relay.end()


def test_a_lost_connection_is_made_again_and_what_was_missed_is_looked_for(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portclaim.common.db.listener._PAUSE", 0.01)
    rung = threading.Semaphore(0)
    listener = NotificationListener(fleet.engine, outbox.CHANNEL, rung.release)
    try:
        listener.start()
        assert rung.acquire(timeout=LONG)
        wait_until_listening(fleet.engine, outbox.CHANNEL)
        fleet.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        assert rung.acquire(timeout=LONG), "rung when it listens again"
        fleet.scheduler.retry()
        assert rung.acquire(timeout=LONG), "rung by a notification"
    finally:
        listener.end()
