"""Steps without an answer are parked after a number of sends, listed, and sent again on request."""

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


def run_relay(fleet: Fleet, times: int, max_sends: int = 3) -> None:
    """Make every step that is not parked due, and run the relay once; ``times`` times."""
    for _ in range(times):
        fleet.sql("UPDATE outbox SET send_after = now() WHERE send_after < 'infinity'")
        fleet.relay(max_sends=max_sends).send_due()


def awaited(fleet: Fleet, *, parked: bool = False, host: str | None = None) -> list[AwaitedStep]:
    return fleet.scheduler.awaited_steps(StepFilter(host=host, parked=parked)).steps


def parked_claim(fleet: Fleet) -> Claim:
    claim = fleet.claim("nic-vf:1")
    run_relay(fleet, 5)
    fleet.sent.clear()
    return claim


def test_a_step_is_parked_after_max_sends(fleet: Fleet) -> None:
    claim = fleet.claim("nic-vf:1")
    run_relay(fleet, 1)
    assert [step.parked for step in awaited(fleet)] == [False]
    run_relay(fleet, 5)
    assert len(fleet.sent) == 3, "the claim sends once, the relay twice"
    [step] = awaited(fleet, parked=True)
    assert (step.claim_id, step.host, step.action, step.times_sent) == (claim.claim_id, "h1", "attach", 3)
    assert fleet.show(claim).status == "claimed", "a parked step does not free the devices"


def test_a_parked_step_shows_its_last_failure(fleet: Fleet, host: Host) -> None:
    claim = fleet.claim("nic-vf:1")
    host.done(claim)
    fleet.release(claim)
    host.failed(claim, "the guest does not let go")
    run_relay(fleet, 5)
    [step] = awaited(fleet, parked=True)
    assert (step.action, step.last_failure) == ("detach", "the guest does not let go")


def test_a_parked_claim_can_be_answered_and_released_and_is_in_the_holdings(fleet: Fleet, host: Host) -> None:
    claim = parked_claim(fleet)
    assert [holding.claim_id for holding in host.holdings()] == [claim.claim_id]
    host.done(claim)
    assert (fleet.show(claim).status, awaited(fleet)) == ("allocated", [])
    other = parked_claim(fleet)
    fleet.release(other)
    assert [step.parked for step in awaited(fleet)] == [False], (
        "the detach is a new step, which is not parked"
    )


def test_retry_sends_a_parked_step_as_if_for_the_first_time(fleet: Fleet) -> None:
    claim, other = parked_claim(fleet), parked_claim(fleet)
    assert fleet.scheduler.retry([claim.claim_id]) == 1
    fleet.relay(max_sends=3).send_due()
    assert [step.claim_id for _, step in fleet.sent] == [claim.claim_id]
    assert [step.claim_id for step in awaited(fleet, parked=True)] == [other.claim_id]
    run_relay(fleet, 5)
    assert len(awaited(fleet, parked=True)) == 2


def test_retry_can_send_all_parked_steps_of_one_host_or_of_all_hosts(fleet: Fleet) -> None:
    fleet.host("h2", ports=1, vfs=2)
    fleet.claim("nic-vf:1", hosts=["h1"])
    fleet.claim("nic-vf:1", hosts=["h2"])
    run_relay(fleet, 5)
    waiting = fleet.claim("nic-vf:1", hosts=["h2"])
    assert fleet.scheduler.retry(host="h2") == 1
    assert fleet.scheduler.retry() == 1
    assert fleet.scheduler.retry() == 0
    assert fleet.scheduler.retry([waiting.claim_id], host="h1") == 0
    assert fleet.scheduler.retry([uuid4()]) == 0


def test_retry_wakes_a_relay_at_once(fleet: Fleet) -> None:
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


def test_a_listener_reconnects_and_then_wakes_its_owner(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portclaim.common.db.listener._PAUSE", 0.01)
    woken = threading.Semaphore(0)
    listener = NotificationListener(fleet.engine, outbox.CHANNEL, woken.release)
    try:
        listener.start()
        assert woken.acquire(timeout=LONG)
        wait_until_listening(fleet.engine, outbox.CHANNEL)
        fleet.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        assert woken.acquire(timeout=LONG), "the listener wakes its owner after it has reconnected"
        fleet.scheduler.retry()
        assert woken.acquire(timeout=LONG), "the listener wakes its owner for a notification"
    finally:
        listener.end()


def test_the_list_shows_steps_of_every_action(fleet: Fleet, host: Host) -> None:
    other = fleet.host("h2", ports=1, vfs=4)
    fleet.claim("nic-vf:1", hosts=["h1"], attach="on-call")
    fleet.release(fleet.attached(fleet.claim("nic-vf:1", hosts=["h1"])))
    move = fleet.move(fleet.attached(fleet.claim("nic-vf:1", hosts=["h1"])), hosts=["h2"], live=True)
    assert sorted(step.action for step in awaited(fleet)) == ["attach", "detach", "prepare"]
    other.prepared(move.target)
    assert sorted(step.action for step in awaited(fleet)) == ["detach", "prepare", "unplug"]
    host.prepared(move.source)
    assert sorted(step.action for step in awaited(fleet)) == ["detach", "prepare"]
