"""Something dies during a move: a caller that repeats its call gets the right answer."""

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
    """A service dies, as far as its database and its caller can tell."""


Outlived = Callable[[Callable[[], Move]], Move]


@pytest.fixture
def outlived(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Outlived:
    """Repeat a call until it is answered. In the first attempt the service dies after one statement, in the
    second after two, and so on. A service that died has sent nothing to an agent."""

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


def test_beginning_a_move_survives_the_death_of_schedulers(
    fleet: Fleet, outlived: Outlived, source: Claim
) -> None:
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
def test_ending_a_move_survives_the_death_of_schedulers(
    fleet: Fleet, outlived: Outlived, end: str, is_attached: bool, status: str
) -> None:
    move = fleet.move(instance_on_h1(fleet))
    if is_attached:
        fleet.attached(move.target)
    assert outlived(partial(getattr(fleet, end), move)).status == status


def test_recording_the_attach_survives_the_death_of_conductors(
    fleet: Fleet, outlived: Outlived, source: Claim
) -> None:
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
def test_a_move_survives_the_death_of_a_postgresql_session(
    fleet: Fleet, source: Claim, what: str, status: str
) -> None:
    """The session is killed when its work is half done. The service repeats all of it on another one."""
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
        # Each call writes an event as its last statement, and waits for this lock before that.
        connection.execute(sa.text("LOCK claim_events IN SHARE MODE"))
        call = meanwhile(calls[what])
        wait_until_blocked(fleet.engine)
        killed = {pid for pid, _ in fleet.sql(f"SELECT pid, pg_terminate_backend(pid) {_BLOCKED_SESSIONS}")}
        wait_until(
            lambda: {pid for (pid,) in fleet.sql(f"SELECT pid {_BLOCKED_SESSIONS}")} - killed,
            "another session repeats the work",
        )
        connection.rollback()
    call.result()
    assert fleet.sql("SELECT status FROM moves") == [(status,)]


_BLOCKED_SESSIONS = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_the_steps_of_a_move_are_sent_after_the_bus_was_down(fleet: Fleet, source: Claim) -> None:
    fleet.bus_is_down = True
    move = fleet.move(source)
    fleet.attached(move.target)
    fleet.complete(move)
    fleet.bus_is_down = False
    fleet.sql("UPDATE outbox SET send_after = now()")
    fleet.sent.clear()
    fleet.relay().send_due()
    assert [(host, step.action) for host, step in fleet.sent] == [("h1", "detach")]


@pytest.mark.parametrize("live", [False, True], ids=["cold", "live"])
def test_concurrent_calls_on_a_move_break_no_rule(fleet: Fleet, source: Claim, live: bool) -> None:
    for number in range(6):
        move = fleet.move(source, live=live)
        if live and number % 2:
            fleet.hosts[move.target.host].prepared(move.target)
        at_once(
            [
                partial(fleet.complete, move),
                partial(fleet.revert, move),
                partial(fleet.hosts[move.target.host].prepared, move.target, 1),
                partial(fleet.hosts[move.source.host].prepared, source),
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
