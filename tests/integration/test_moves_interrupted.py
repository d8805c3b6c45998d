"""Whatever dies in the middle of a move: who calls again until there is an answer gets the right one."""

from collections.abc import Callable
from functools import partial
from uuid import uuid4

import pytest
import sqlalchemy as sa

from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.move_messages import Move
from tests.support.concurrency import at_once, meanwhile, wait_until, wait_until_blocked
from tests.support.fleet import Fleet
from tests.support.interference import after_each_statement
from tests.support.moves import instance_on_h1


@pytest.fixture
def source(fleet: Fleet) -> Claim:
    return instance_on_h1(fleet)


class Death(BaseException):
    """Of a service, as far as its database and its caller can tell."""


Outlived = Callable[[Callable[[], Move]], Move]


@pytest.fixture
def outlived(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Outlived:
    """Call until there is an answer: who answers dies after its first statement, the next after its second,
    and so on. Whoever died has not cast anything."""

    def call_again(call: Callable[[], Move]) -> Move:
        left = deaths = 0

        def die(_statement: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Death

        with monkeypatch.context() as patch:
            after_each_statement(patch, fleet.engine, die)
            while True:
                left = deaths
                try:
                    answer = call()
                except Death:
                    deaths += 1
                    continue
                left = 1_000_000
                assert deaths
                return answer

    return call_again


def test_a_scheduler_that_moves(fleet: Fleet, outlived: Outlived, source: Claim) -> None:
    target_id = uuid4()
    move = outlived(partial(fleet.move, source, target_id))
    assert (move.status, move.target.claim_id) == ("begun", target_id)
    assert fleet.sql("SELECT count(*) FROM claims") == [(2,)]
    assert fleet.sql("SELECT claim_id, action FROM outbox") == [(target_id, "attach")]


@pytest.mark.parametrize(
    ("end", "is_attached", "status"),
    [
        ("complete", False, "completing"),
        ("complete", True, "completed"),
        ("revert", False, "reverted"),
        ("revert", True, "reverted"),
    ],
)
def test_a_scheduler_that_ends_one(
    fleet: Fleet, outlived: Outlived, end: str, is_attached: bool, status: str
) -> None:
    move = fleet.move(instance_on_h1(fleet))
    if is_attached:
        fleet.attached(move.target)
    assert outlived(partial(getattr(fleet, end), move)).status == status


def test_a_conductor_that_is_told_of_the_attach(fleet: Fleet, outlived: Outlived, source: Claim) -> None:
    move = fleet.move(source)
    fleet.complete(move)

    def told() -> Move:
        fleet.hosts[move.target.host].done(move.target, step=1)
        return fleet.complete(move)

    completed = outlived(told)
    assert (completed.status, completed.source.status) == ("completed", "releasing")


@pytest.mark.parametrize(
    ("what", "status"),
    [("move", "begun"), ("complete", "completed"), ("revert", "reverted"), ("attached", "completed")],
)
def test_a_session_of_postgresql(fleet: Fleet, source: Claim, what: str, status: str) -> None:
    """It is killed with its work half done; the service does all of it again on another."""
    calls: dict[str, Callable[[], object]] = {"move": partial(fleet.move, source)}
    if what != "move":
        move = fleet.move(source)
        calls["revert"] = partial(fleet.revert, move)
        calls["complete"] = partial(fleet.complete, move)
        calls["attached"] = partial(fleet.attached, move.target)
    if what == "complete":
        fleet.attached(move.target)
    if what == "attached":
        fleet.complete(move)
    with fleet.engine.connect() as connection:
        # Each writes an event last, and not before this lets go.
        connection.execute(sa.text("LOCK claim_events IN SHARE MODE"))
        call = meanwhile(calls[what])
        wait_until_blocked(fleet.engine)
        killed = {pid for pid, _ in fleet.sql(f"SELECT pid, pg_terminate_backend(pid) {_WHO_WAITS}")}
        wait_until(
            lambda: {pid for (pid,) in fleet.sql(f"SELECT pid {_WHO_WAITS}")} - killed, "it is retried"
        )
        connection.rollback()
    call.result()
    assert fleet.sql("SELECT status FROM moves") == [(status,)]


_WHO_WAITS = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_a_bus_that_takes_no_step(fleet: Fleet, source: Claim) -> None:
    fleet.bus_is_down = True
    move = fleet.move(source)
    fleet.attached(move.target)
    fleet.complete(move)
    fleet.bus_is_down = False
    fleet.sql("UPDATE outbox SET send_after = now()")
    fleet.sent.clear()
    fleet.relay().send_due()
    assert [(host, step.action) for host, step in fleet.sent] == [("h1", "detach")]


def test_all_that_may_happen_to_a_move_may_cross(fleet: Fleet, source: Claim) -> None:
    for _ in range(6):
        move = fleet.move(source)
        at_once(
            [
                partial(fleet.complete, move),
                partial(fleet.revert, move),
                partial(fleet.hosts[move.target.host].done, move.target, 1),
                partial(fleet.expire, 0),
                partial(fleet.release, source),
                partial(fleet.move, source, move.target.claim_id),
            ]
        )
        assert fleet.faults() == []
        for end in (source, move.target):
            fleet.hosts[end.host].done(fleet.release(end))
        assert {status for host in fleet.hosts for status in fleet.status(host).values()} == {"available"}
        source = fleet.attached(fleet.claim("nic-vf:2", hosts=["h1"]))
    assert fleet.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]
