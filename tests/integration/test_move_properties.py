"""Moves mixed with all other events of claims, one by one or several at once.

An instance loses its devices only if somebody releases them. An ended move leaves at most one claim live.
The rules are in ``tests.support.invariants``. They read the history of all claims. Each step checks them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID, uuid4

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from portclaim.common.errors import ClaimRefused, MoveConflict, MoveNotFound, PortclaimError, ServiceFailed
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.move_messages import Move
from tests.support.concurrency import at_once
from tests.support.effort import IS_LONG, short_or_long
from tests.support.fleet import Fleet

HOSTS = ("h1", "h2", "h3")
ALIAS_SPECS = ("nic-vf:1", "nic-vf:2", "nic-pf:1", "nic-pf:1,nic-vf:1")

some = st.integers(0, 7)
targets = st.sampled_from([*HOSTS, None])
others = st.sampled_from(
    ["done", "done", "done", "prepared", "prepared", "failed", "release", "force", "expire", "no guest"]
)
kinds = st.sampled_from([True, False])  # live or cold
resizes = st.sampled_from([None, None, *ALIAS_SPECS])


def has_claims(machine: "Migration") -> bool:
    return bool(machine.claims)


class Migration(RuleBasedStateMachine):
    """Three hosts with two ports of three VFs each, and the instances on them."""

    def __init__(self, database_url: str) -> None:
        super().__init__()
        self.fleet = Fleet(database_url)
        self.fleet.sql("TRUNCATE compute_nodes, pools CASCADE")
        self.hosts = {name: self.fleet.host(name, ports=2, vfs=3) for name in HOSTS}
        self.claims: list[Claim] = []

    def teardown(self) -> None:
        self.fleet.close()

    @rule(alias_spec=st.sampled_from(ALIAS_SPECS))
    def an_instance_gets_devices(self, alias_spec: str) -> None:
        claim = self.answer(partial(self.fleet.claim, alias_spec))
        if isinstance(claim, Claim):
            self.claims.append(claim)
            self.answer(partial(self.hosts[claim.host].done, claim))

    @rule()
    def a_conductor_counts_hosts(self) -> None:
        self.fleet.count_hosts()

    @precondition(has_claims)
    @rule(which=some, to=targets, resize=resizes, live=kinds)
    def a_move_begins(self, which: int, to: str | None, resize: str | None, live: bool) -> None:
        source = self.fleet.show(self.claim(which))
        may = source.status == "allocated" and (source.move is None or not is_live(source.move.status))
        answer = self.answer(self.begins(which, to, resize, live))
        assert isinstance(answer, Move | ClaimRefused if may else MoveConflict), answer
        if isinstance(answer, Move):
            again = self.fleet.move(source, answer.target.claim_id, to and [to], resize, live=live)
            assert again == answer

    @precondition(has_claims)
    @rule(which=some)
    def a_move_is_completed(self, which: int) -> None:
        before, target_status = self.move_to(which)
        answer = self.answer(self.completes(which))
        match before, target_status:
            case None, _:
                assert isinstance(answer, MoveNotFound)
            case "reverted", _:
                assert isinstance(answer, MoveConflict)
            case "begun", "claimed" | "prepared":
                assert isinstance(answer, Move)
                assert answer.status == "completing"
            case "begun", _:
                assert isinstance(answer, Move)
                assert (answer.status, answer.source.status) == ("completed", "releasing")
            case _:
                assert isinstance(answer, Move)
                assert answer.status == before

    @precondition(has_claims)
    @rule(which=some)
    def a_move_is_reverted(self, which: int) -> None:
        before, _ = self.move_to(which)
        answer = self.answer(self.reverts(which))
        match before:
            case None:
                assert isinstance(answer, MoveNotFound)
            case "completed":
                assert isinstance(answer, MoveConflict)
            case _:
                assert isinstance(answer, Move)
                assert answer.status == "reverted"
                assert answer.target.status in {"releasing", "released", "failed", "expired"}

    @precondition(has_claims)
    @rule(which=some, kind=others)
    def something_else_happens(self, which: int, kind: str) -> None:
        self.answer(self.other(kind, which))

    @precondition(has_claims)
    @rule(data=st.data(), number=st.integers(2, 5))
    def all_at_once(self, data: st.DataObject, number: int) -> None:
        calls = [self.answer_of(self.any_call(data)) for _ in range(number)]
        self.learn(at_once(calls))

    @invariant()
    def all_is_right(self) -> None:
        assert self.fleet.faults() == []

    def any_call(self, data: st.DataObject) -> Callable[[], object]:
        which = data.draw(some)
        match data.draw(st.sampled_from(["move", "complete", "revert", "other", "other"])):
            case "move":
                return self.begins(which, data.draw(targets), data.draw(resizes), data.draw(kinds))
            case "complete":
                return self.completes(which)
            case "revert":
                return self.reverts(which)
        return self.other(data.draw(others), which)

    def begins(self, which: int, to: str | None, resize: str | None, live: bool) -> Callable[[], object]:
        return lambda: self.fleet.move(self.claim(which), uuid4(), to and [to], resize, live=live)

    def completes(self, which: int) -> Callable[[], object]:
        return lambda: self.fleet.scheduler.complete_move(self.claim(which).claim_id)

    def reverts(self, which: int) -> Callable[[], object]:
        return lambda: self.fleet.scheduler.revert_move(self.claim(which).claim_id)

    def other(self, kind: str, which: int) -> Callable[[], object]:
        """A step result of an agent, a release by a caller or an operator, or the expiry by a conductor."""

        def call() -> object:
            claim = self.claim(which)
            host = self.hosts[claim.host]
            match kind:
                case "done" | "prepared":
                    return host.done(claim) if kind == "done" else host.prepared(claim)
                case "failed":
                    return host.failed(claim, "no such instance")
                case "release":
                    return self.fleet.release(claim)
                case "force":
                    self.fleet.falls_silent(claim.host)
                    try:
                        return self.fleet.force(claim)
                    finally:
                        host.report()
                case "no guest":
                    self.fleet.sql(
                        "UPDATE claims SET guest_deadline = now() WHERE guest_deadline IS NOT NULL"
                    )
            return self.fleet.expire(None if kind == "no guest" else 0)

        return call

    def claim(self, which: int) -> Claim:
        """One of the latest claims; it may be the target of a move."""
        return self.claims[-8:][which % len(self.claims[-8:])]

    def move_to(self, which: int) -> tuple[str | None, str]:
        """The status of the move whose target is this claim, and the status of the claim."""
        claim_id: UUID = self.claim(which).claim_id
        found = self.fleet.sql("SELECT status FROM moves WHERE target_claim_id = :id", id=claim_id)
        return found[0][0] if found else None, self.fleet.show(self.claim(which)).status

    def answer_of(self, call: Callable[[], object]) -> Callable[[], object]:
        """The same call, but it returns a refusal instead of raising it."""

        def answer() -> object:
            try:
                return call()
            except ServiceFailed:
                raise
            except PortclaimError as error:
                return error

        return answer

    def answer(self, call: Callable[[], object]) -> object:
        answer = self.answer_of(call)()
        self.learn([answer])
        return answer

    def learn(self, answers: Sequence[object]) -> None:
        known = {claim.claim_id for claim in self.claims}
        for answer in answers:
            assert not isinstance(answer, Exception) or isinstance(answer, PortclaimError), answer
            if isinstance(answer, Move) and answer.target.claim_id not in known:
                self.claims.append(answer.target)


def is_live(status: str) -> bool:
    return status in {"begun", "completing"}


def test_a_moving_instance_always_has_devices_on_one_of_its_hosts(database_url: str) -> None:
    run_state_machine_as_test(
        lambda: Migration(database_url),  # type: ignore[arg-type]  # a factory works too
        settings=settings(
            max_examples=short_or_long(20, 500),
            stateful_step_count=short_or_long(30, 60),
            derandomize=not IS_LONG,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # a failure between threads may not repeat, so it cannot be shrunk
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
