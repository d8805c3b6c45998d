"""Any calls, in any order, one by one or several at once: every answer and every change is right.

Hypothesis draws the events. :class:`Model` says which answers are allowed and what they change. The rules of
``tests.support.invariants`` are checked after every step.
"""

from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from portclaim.common.errors import PortclaimError
from portclaim.common.rpc.agent_messages import (
    DeviceReport,
    InventoryReport,
    StepAnswer,
    StepResult,
    StepResults,
)
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.services.conductor import lifecycle
from tests.support.concurrency import at_once
from tests.support.effort import IS_LONG, short_or_long
from tests.support.fleet import Fleet, pf, port_devices, vf
from tests.support.happenings import (
    PORTS,
    VFS,
    Happening,
    Reports,
    World,
    alias_specs,
    happenings,
    inventories,
    limits,
    names,
    some,
)
from tests.support.invariants import violations
from tests.support.linearizability import Operation, legal_order
from tests.support.model import (
    Attach,
    Call,
    Drain,
    Ending,
    Expire,
    ExpireWithoutGuest,
    Force,
    Look,
    Model,
    NotRecorded,
    Release,
    Report,
)
from tests.support.model_host import Kind


class Life(RuleBasedStateMachine):
    """The life of a small fleet, which starts with empty tables."""

    def __init__(self, database_url: str) -> None:
        super().__init__()
        self.fleet = Fleet(database_url)
        self.fleet.sql("TRUNCATE compute_nodes, pools CASCADE")
        self.world = World()

    def teardown(self) -> None:
        self.fleet.close()

    @initialize(another=st.none() | inventories())
    def hosts_appear(self, another: Sequence[DeviceReport] | None) -> None:
        self.apply(Reports("h1", [device for port in PORTS for device in port_devices(port, len(VFS))]))
        if another is not None:
            self.apply(Reports("h2", another))

    @rule(what=st.lists(happenings, min_size=1, max_size=8))
    def one_after_the_other(self, what: Sequence[Happening]) -> None:
        for each in what:
            self.apply(each)
            self.all_is_right()

    @rule(what=st.lists(happenings, min_size=2, max_size=5), together=st.booleans())
    def at_once(self, what: Sequence[Happening], together: bool) -> None:
        model = self.world.model
        groups = in_groups([each.call(self.world) for each in what], together)
        count: Callable[[], list[object]] = partial(list, [self.fleet.count_hosts])
        told = at_once([*(partial(self.answers, group) for group in groups), count])[:-1]
        calls = [call for group in groups for call in group]
        answers: list[object] = []
        for group, answered in zip(groups, told, strict=True):
            answers += [answered] * len(group) if isinstance(answered, Exception) else answered
        calls.append(Look())
        answers.append(self.answer(Look()))
        said = list(zip(calls, answers, strict=True))
        takes = [partial(Model.after, call=call, answer=answer) for call, answer in said]
        operations = [Operation(0, 0, take) for take in takes[:-1]]
        order = legal_order([*operations, Operation(1, 1, takes[-1])], model)
        story = "\n".join(f"{call}: {answer!r}" for call, answer in said)
        assert order, f"from {model.picture()} no order explains\n{story}"
        for number in order:
            model.take(*said[number])

    @rule(what=st.lists(happenings, min_size=3, max_size=8))
    def several_in_one_call(self, what: Sequence[Happening]) -> None:
        for group in in_groups([each.call(self.world) for each in what], together=True):
            for call, answer in zip(group, self.answers(group), strict=True):
                self.world.model.take(call, answer)
            self.all_is_right()

    @rule()
    def a_conductor_counts_hosts(self) -> None:
        self.fleet.count_hosts()

    @rule()
    def all_claims_that_are_not_prepared_expire(self) -> None:
        waiting = {id_ for id_, claim in self.world.model.claims.items() if claim.status == "claimed"}
        expired = self.fleet.expire(after=0)
        assert set(expired) == waiting
        self.world.model.take(Expire(after=0), expired)

    @rule()
    def no_guest_comes_in_time(self) -> None:
        self.fleet.sql("""
            UPDATE claims
               SET prepared_at = prepared_at - interval '2 h',
                   guest_deadline = guest_deadline - interval '2 h'
             WHERE status = 'prepared'
        """)
        self.world.model.take(ExpireWithoutGuest(), self.fleet.expire(after=None))

    @rule(which=some)
    def an_operator_releases_a_claim_by_force(self, which: int) -> None:
        claim_id = self.world.claim_id(which)
        if claim := self.world.model.claims.get(claim_id):
            self.fleet.falls_silent(claim.host)
            ended = self.fleet.scheduler.force_release(claim_id, "ann", "it has burnt down")
            self.fleet.sql("UPDATE compute_nodes SET last_seen = now()")
            cause = "released by force, by ann: it has burnt down"
            self.world.model.take(Force(claim_id, cause), ended)

    @rule(host=names, port=st.sampled_from([*PORTS, None]), is_drained=st.booleans())
    def an_operator_drains_or_undrains_a_port(self, host: str, port: int | None, is_drained: bool) -> None:
        drain = Drain(host, vf(0, 0) if port is None else pf(port), is_drained)
        self.world.model.take(drain, self.answer(drain))

    @rule(alias_spec=alias_specs, hosts=limits)
    def explain_relay_and_holdings_match_the_model(
        self, alias_spec: str, hosts: Sequence[str] | None
    ) -> None:
        assert self.fleet.explain(alias_spec, hosts).served == self.world.model.can_serve(alias_spec, hosts)
        claims = self.world.model.claims.items()
        self.fleet.sql("UPDATE outbox SET send_after = now()")
        self.fleet.sent.clear()
        self.fleet.relay().send_due()
        assert sorted(
            (host, step.claim_id, step.action, step.step, sorted(device.address for device in step.devices))
            for host, step in self.fleet.sent
        ) == sorted(
            (claim.host, id_, claim.awaited, claim.step, sorted(claim.devices))
            for id_, claim in claims
            if claim.awaited
        )
        for host in self.world.model.hosts:
            asked = self.fleet.conductor.holdings(host, agent_of(host), list(self.world.model.claims))
            assert {
                (held.claim_id, held.status, held.step, frozenset(device.address for device in held.devices))
                for held in asked.holdings
            } == {
                (id_, claim.status, claim.step, frozenset(claim.devices))
                for id_, claim in claims
                if claim.host == host and claim.is_live
            }
            assert set(asked.ended) == {id_ for id_, claim in claims if not claim.is_live}

    def apply(self, what: Happening) -> None:
        call = what.call(self.world)
        self.world.model.take(call, self.answer(call))

    @invariant()
    def all_is_right(self) -> None:
        self.world.model.take(Look(), self.answer(Look()))
        with self.fleet.engine.connect() as connection:
            assert violations(connection) == []

    def answers(self, group: Sequence[Call]) -> list[object]:
        """The answers of the services to calls that go together, if they are several."""
        if len(group) == 1:
            return [self.answer(group[0])]
        match group[0]:
            case ClaimRequest():
                return list(self.fleet.scheduler.claim_many(group))
            case Release():
                return list(self.fleet.scheduler.release_many([call.claim_id for call in group]))
        return self.answers_of_agent(group)

    def answers_of_agent(self, endings: Sequence[Ending]) -> list[object]:
        results = StepResults(
            host=endings[0].host,
            agent_id=agent_of(endings[0].host),
            answers=[
                StepAnswer(
                    claim_id=ending.claim_id, step=ending.step, outcome=ending.outcome, reason=ending.reason
                )
                for ending in endings
            ],
        )
        try:
            refused = lifecycle.steps_done(self.fleet.engine, results, guest_within=3600.0)
        except PortclaimError as error:
            return [error] * len(endings)
        return [NotRecorded() if ending.claim_id in refused else None for ending in endings]

    def answer(self, call: Call) -> object:
        """The answer of the services. An error is an answer too."""
        fleet = self.fleet
        answer: object = None
        try:
            match call:
                case ClaimRequest():
                    answer = fleet.scheduler.claim(call)
                case Release(claim_id):
                    answer = fleet.scheduler.release(claim_id)
                case Report(host, digest, devices):
                    report = InventoryReport(
                        host=host,
                        agent_id=agent_of(host),
                        digest=digest,
                        devices=None if devices is None else list(devices),
                    )
                    answer = fleet.conductor.report_inventory(report)
                case Attach(claim_id):
                    answer = fleet.scheduler.attach(claim_id)
                case Ending(host, claim_id, step, outcome, reason):
                    result = StepResult(
                        host=host,
                        agent_id=agent_of(host),
                        claim_id=claim_id,
                        step=step,
                        outcome=outcome,
                        reason=reason,
                    )
                    fleet.conductor.step_done(result)
                case Expire(after):
                    answer = fleet.expire(after)
                case Drain(host, address, True):
                    answer = fleet.scheduler.drain(host, "flapping", address)
                case Drain(host, address, _):
                    answer = fleet.scheduler.undrain(host, address)
                case Look():
                    answer = self.look()
        except PortclaimError as error:
            return error
        return answer

    def look(self) -> object:
        """The content of the database, in the form of :meth:`Model.picture`."""
        devices = self.fleet.sql("""
            SELECT n.host, d.address, d.dev_type, p.vendor_id, p.product_id, pf.address,
                   d.offered, d.present, d.unusable_reason IS NULL, d.drained_reason IS NOT NULL,
                   d.status, d.claim_id
              FROM pci_devices d
              JOIN compute_nodes n ON n.id = d.compute_node_id
              JOIN pools p ON p.id = d.pool_id
              LEFT JOIN pci_devices pf ON pf.id = d.parent_id
        """)
        claims = self.fleet.sql("SELECT id, status, step, reason FROM claims")
        return {
            "hosts": dict(self.fleet.sql("SELECT host, inventory_digest FROM compute_nodes")),
            "devices": {(host, at): (Kind(*facts[:3]), *facts[3:]) for host, at, *facts in devices},
            "claims": {claim_id: tuple(facts) for claim_id, *facts in claims},
        }


def in_groups(calls: Sequence[Call], together: bool) -> list[list[Call]]:
    """The calls, those in a group that one call can make. Without ``together``, each in a group of its own.

    The order of calls of the same kind stays.
    """
    groups: dict[object, list[Call]] = {}
    for number, call in enumerate(calls):
        match call:
            case ClaimRequest() | Release() if together:
                kind: object = type(call)
            case Ending(host, claim_id) if together:
                same = (host, [each.claim_id for each in groups.get(host, ()) if isinstance(each, Ending)])
                kind = number if claim_id in same[1] else host
            case _:
                kind = number
        groups.setdefault(kind, []).append(call)
    return list(groups.values())


def agent_of(host: str) -> UUID:
    return UUID(int=int(host[1:]))


def test_every_answer_is_right_and_no_device_is_booked_twice(database_url: str) -> None:
    run_state_machine_as_test(
        lambda: Life(database_url),  # type: ignore[arg-type]  # a factory works too
        settings=settings(
            max_examples=short_or_long(20, 1000),
            stateful_step_count=short_or_long(25, 50),
            derandomize=not IS_LONG,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # a failure between threads may not repeat, so it cannot be shrunk
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
