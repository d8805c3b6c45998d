"""Single claims, releases and answers that come at once are made together; each has its own outcome."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from portclaim.common import tracing
from portclaim.common.db.prepared_statement import PreparedStatement
from portclaim.common.errors import ClaimConflict, ClaimNotFound, ClaimRefused, StaleStep
from portclaim.common.group_commit import GroupCommit
from portclaim.common.rpc.agent_messages import StepResult
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.trace_spans import Span, Tracer
from tests.support.concurrency import LONG, meanwhile, wait_until
from tests.support.fleet import Fleet, request_for
from tests.support.invariants import violations


class Statements:
    """Counts statements by name, and lets the next one of a name wait until :meth:`go_on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count: Counter[str] = Counter()
        self._held = ""
        self._waits = threading.Event()
        self._goes_on = threading.Event()
        execute = PreparedStatement.rows

        def rows(
            statement: PreparedStatement, engine: sa.Engine, facts: Mapping[str, Any]
        ) -> list[tuple[Any, ...]]:
            self.count[statement.name] += 1
            answer = execute(statement, engine, facts)
            if self._held and statement.name.startswith(self._held):
                self._held = ""
                self._waits.set()
                assert self._goes_on.wait(LONG)
            return answer

        monkeypatch.setattr(PreparedStatement, "rows", rows)

    def hold(self, name: str, call: Callable[[], object]) -> Future[object]:
        """Begin a call, which waits after its statement of this name. Counting begins after it."""
        self._held = name
        result = meanwhile(call)
        assert self._waits.wait(LONG)
        self.count.clear()
        return result

    def go_on(self) -> None:
        self._goes_on.set()


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    return Statements(monkeypatch)


@pytest.fixture
def fleet(fleet: Fleet) -> Iterator[Fleet]:
    """However slow the machine is, a group is as large as the test makes it."""
    for commit in (claims_of(fleet), releases_of(fleet), answers_of(fleet)):
        commit._patience = LONG
    yield fleet
    with fleet.engine.connect() as connection:
        assert violations(connection) == []


def claims_of(fleet: Fleet) -> GroupCommit[Any, Any]:
    return fleet.scheduler._endpoint._grouped._claim


def releases_of(fleet: Fleet) -> GroupCommit[Any, Any]:
    return fleet.scheduler._endpoint._grouped._release


def answers_of(fleet: Fleet) -> GroupCommit[Any, Any]:
    return fleet.conductor._endpoint._answers._are_recorded


def in_line(commit: GroupCommit[Any, Any], calls: Sequence[Callable[[], Any]]) -> list[Future[Any]]:
    """Make these calls while a group is worked on: they wait in this order."""
    results = []
    for number, call in enumerate(calls, start=1):
        results.append(meanwhile(call))
        wait_until(lambda number=number: len(commit._waiting) == number, "the call waits")
    return results


def outcome(result: Future[Any]) -> Any:
    """The result, or the error that was raised."""
    return result.exception(LONG) or result.result(LONG)


def claims_in_line(fleet: Fleet, statements: Statements, *requests: ClaimRequest) -> list[Any]:
    """The outcomes of claims that come while another one is made."""
    statements.hold("claim_beside", lambda: fleet.claim("nic-vf:1"))
    results = in_line(
        claims_of(fleet),
        [lambda request=request: fleet.scheduler.claim(request) for request in requests],
    )
    statements.go_on()
    return [outcome(result) for result in results]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """The spans that have ended. No trace begins by itself."""
    ended: list[Span] = []
    monkeypatch.setattr(tracing, "_tracer", Tracer(ended.append, share=0))
    return ended


def caller(number: int) -> str:
    """The trace of a caller."""
    return f"00-{number:032x}-{number:016x}-01"


class TestClaims:
    @pytest.fixture(autouse=True)
    def _port(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=8)
        fleet.claim("nic-vf:1")  # so that a port is in use

    def test_those_that_come_while_another_is_made_are_made_in_one_statement(
        self, fleet: Fleet, statements: Statements
    ) -> None:
        claims = claims_in_line(fleet, statements, *[request_for("nic-vf:1") for _ in range(5)])
        assert [claim.status for claim in claims] == ["claimed"] * 5
        assert len({claim.devices[0].address for claim in claims}) == 5
        assert statements.count["claim_vfs_alike_pack"] == 1
        assert statements.count["claim_beside_pack"] == 0

    def test_each_is_sent_to_its_agent(self, fleet: Fleet, statements: Statements) -> None:
        claims = claims_in_line(fleet, statements, *[request_for("nic-vf:1") for _ in range(3)])
        assert {claim.claim_id for claim in claims} <= {step.claim_id for _, step in fleet.sent}

    def test_those_that_come_first_get_what_is_left(self, fleet: Fleet, statements: Statements) -> None:
        outcomes = claims_in_line(fleet, statements, *[request_for("nic-vf:1") for _ in range(8)])
        assert [type(each) for each in outcomes] == [Claim] * 6 + [ClaimRefused] * 2

    def test_the_same_claim_twice_is_one_claim(self, fleet: Fleet, statements: Statements) -> None:
        request = request_for("nic-vf:1")
        first, again = claims_in_line(fleet, statements, request, request)
        assert first.devices == again.devices

    def test_another_request_with_a_known_id_is_a_conflict_for_itself_only(
        self, fleet: Fleet, statements: Statements
    ) -> None:
        request = request_for("nic-vf:1")
        other = request.model_copy(update={"instance_id": uuid4()})
        outcomes = claims_in_line(fleet, statements, request, other, request_for("nic-vf:1"))
        assert [type(each) for each in outcomes] == [Claim, ClaimConflict, Claim]

    def test_those_that_ask_for_something_else_are_another_group(
        self, fleet: Fleet, statements: Statements
    ) -> None:
        asked = ["nic-vf:1", "nic-vf:2", "nic-vf:1", "nic-vf:2"]
        claims = claims_in_line(fleet, statements, *map(request_for, asked))
        assert [len(claim.devices) for claim in claims] == [1, 2, 1, 2]
        assert statements.count["claim_vfs_alike_pack"] == 2

    def test_none_is_made_before_those_that_wait_for_the_same(
        self, fleet: Fleet, statements: Statements
    ) -> None:
        all_that_is_left = fleet.claim("nic-vf:6")
        waiting = fleet.claim("nic-vf:2", wait=3600)
        outcomes = claims_in_line(
            fleet,
            statements,
            request_for("nic-vf:2"),
            request_for("nic-vf:2", wait=3600),
            request_for("nic-vf:2"),
        )
        assert [type(each) for each in outcomes] == [ClaimRefused, Claim, ClaimRefused]
        assert outcomes[1].status == "waiting"
        fleet.leave(all_that_is_left)
        fleet.serve()
        assert fleet.show(waiting).status == "claimed"

    def test_a_claim_that_names_hosts_is_made_alone(self, fleet: Fleet, statements: Statements) -> None:
        statements.hold("claim_beside", lambda: fleet.claim("nic-vf:1"))
        assert fleet.claim("nic-vf:1", hosts=["h1"]).status == "claimed"
        statements.go_on()


class TestReleases:
    @pytest.fixture
    def claims(self, fleet: Fleet) -> list[Claim]:
        fleet.host("h1", ports=1, vfs=8)
        return [fleet.claim("nic-vf:1") for _ in range(5)]

    def outcomes(self, fleet: Fleet, statements: Statements, claim_ids: Sequence[Any]) -> list[Any]:
        """Of releases that come while another claim is released."""
        first = fleet.claim("nic-vf:1")
        statements.hold("begin_release", lambda: fleet.release(first))
        results = in_line(
            releases_of(fleet),
            [lambda claim_id=claim_id: fleet.scheduler.release(claim_id) for claim_id in claim_ids],
        )
        statements.go_on()
        return [outcome(result) for result in results]

    def test_those_that_come_while_another_is_released_are_released_in_one_statement(
        self, fleet: Fleet, statements: Statements, claims: list[Claim]
    ) -> None:
        released = self.outcomes(fleet, statements, [claim.claim_id for claim in claims])
        assert [each.status for each in released] == ["releasing"] * 5
        assert [each.claim_id for each in released] == [claim.claim_id for claim in claims]
        assert statements.count == {"begin_releases": 1}

    def test_each_release_has_the_trace_of_its_own_caller(
        self, fleet: Fleet, statements: Statements, claims: list[Claim], spans: list[Span]
    ) -> None:
        """On the step, which may be sent again, and by a span of the statement with links to the others."""
        callers = {claim.claim_id: caller(number) for number, claim in enumerate(claims[:3], start=1)}
        untraced = claims[3].claim_id

        def release(claim_id: UUID) -> Claim:
            with tracing.continued(callers.get(claim_id)):
                return fleet.scheduler.release(claim_id)

        first = fleet.claim("nic-vf:1")
        statements.hold("begin_release", lambda: fleet.release(first))
        ids = [untraced, *callers]
        results = in_line(
            releases_of(fleet), [lambda claim_id=claim_id: release(claim_id) for claim_id in ids]
        )
        statements.go_on()
        assert [outcome(result).status for result in results] == ["releasing"] * 4

        written = dict(
            fleet.sql("SELECT claim_id, traceparent FROM outbox WHERE claim_id = ANY(:ids)", ids=ids)
        )
        assert written == {**callers, untraced: None}
        assert statements.count == {"begin_releases": 1}
        assert [span.name for span in spans] == ["begin_releases"] * 3
        assert {f"{span.context.trace_id:x}" for span in spans} == {"1", "2", "3"}
        leader, *others = spans
        assert leader.links == [other.parent for other in others]
        assert all(other.links == [leader.context] for other in others)

    def test_a_claim_that_does_not_exist_spoils_no_other(
        self, fleet: Fleet, statements: Statements, claims: list[Claim]
    ) -> None:
        outcomes = self.outcomes(fleet, statements, [claims[0].claim_id, uuid4(), claims[1].claim_id])
        assert [type(each) for each in outcomes] == [Claim, ClaimNotFound, Claim]

    def test_a_claim_that_somebody_has_locked_holds_up_no_other(
        self, fleet: Fleet, statements: Statements, claims: list[Claim]
    ) -> None:
        """An operator's transaction, say."""
        with fleet.engine.begin() as operator:
            operator.execute(
                sa.text("SELECT FROM claims WHERE id = :id FOR UPDATE"), {"id": claims[0].claim_id}
            )
            first = fleet.claim("nic-vf:1")
            statements.hold("begin_release", lambda: fleet.release(first))
            locked, free = in_line(
                releases_of(fleet),
                [lambda claim=claim: fleet.release(claim) for claim in claims[:2]],
            )
            statements.go_on()
            assert free.result(LONG).status == "releasing"
            assert not locked.done()
        assert locked.result(LONG).status == "releasing"


class TestAnswers:
    def test_those_of_one_agent_are_recorded_together_and_each_has_its_own_outcome(
        self, fleet: Fleet, statements: Statements
    ) -> None:
        host = fleet.host("h1", ports=1, vfs=8)
        first, second, stale, third = [fleet.claim("nic-vf:1") for _ in range(4)]
        fleet.release(stale)

        def answer(claim: Claim) -> None:
            fleet.conductor.step_done(
                StepResult(
                    host="h1",
                    agent_id=host.agent_id,
                    claim_id=claim.claim_id,
                    step=claim.step,
                    outcome="done",
                )
            )

        statements.hold("answer_step", lambda: answer(first))
        results = in_line(
            answers_of(fleet),
            [lambda claim=claim: answer(claim) for claim in (second, stale, third, third)],
        )
        statements.go_on()
        assert [type(outcome(result)) for result in results] == [
            type(None),
            StaleStep,
            type(None),
            type(None),
        ]
        assert [fleet.show(claim).status for claim in (first, second, third)] == ["allocated"] * 3
        assert fleet.show(stale).status == "releasing"
        assert statements.count["answer_steps"] == 1
