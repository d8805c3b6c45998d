"""A waiting claim is served once all earlier claims have left, whatever other callers claim meanwhile.

Hypothesis draws the events. The rule is in docs/claims.md. The tests run the real code on a real PostgreSQL.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import at_once
from tests.support.effort import IS_LONG, short_or_long
from tests.support.fleet import Fleet, pf

VF_SPECS = ("nic-vf:1", "nic-vf:2", "any-vf:1")
ALIAS_SPECS = (*VF_SPECS, "nic-pf:1", "nic-pf:1", "nic-pf:2", "any-pf:1", "nic-pf:1,nic-vf:1")
PORTS = (2, 2, 1)
some = st.integers(0, 1000)


@dataclass
class Place:
    """A claim in a queue. ``reserved``: its reserved ports. ``holders``: the claims that last held them."""

    alias_spec: str
    reserved: frozenset[str] = frozenset()
    holders: set[UUID] = field(default_factory=set)


class Waiting(RuleBasedStateMachine):
    """A small fleet whose claims come and go, and some of them wait."""

    def __init__(self, database_url: str) -> None:
        super().__init__()
        self.fleet = Fleet(database_url)
        self.fleet.sql("TRUNCATE compute_nodes, pools CASCADE")
        for number, ports in enumerate(PORTS):
            self.fleet.host(f"h{number}", ports=ports, vfs=2)
        self.held: list[Claim] = []
        self.places: dict[UUID, Place] = {}

    def teardown(self) -> None:
        try:
            if self.held or self.places:
                self.serve_every_waiting_claim()
        finally:
            self.fleet.close()

    @initialize(alias_specs=st.lists(st.sampled_from(VF_SPECS), min_size=8, max_size=8))
    def the_fleet_is_busy(self, alias_specs: Sequence[str]) -> None:
        for alias_spec in alias_specs:
            self.a_caller_claims(alias_spec)

    @rule(alias_spec=st.sampled_from(ALIAS_SPECS))
    def a_caller_claims(self, alias_spec: str) -> None:
        try:
            self.held.append(self.fleet.claim(alias_spec))
        except ClaimRefused:
            return
        assert not any(place.alias_spec == alias_spec for place in self.places.values()), (
            "the claim overtook a queue with the same requests"
        )

    @rule(alias_spec=st.sampled_from(ALIAS_SPECS))
    def a_caller_waits(self, alias_spec: str) -> None:
        claim = self.fleet.claim(alias_spec, wait=86_400)
        if claim.status == "waiting":
            self.places[claim.claim_id] = Place(alias_spec)
        else:
            self.held.append(claim)
        self.serve_the_queues()

    @rule(which=some)
    def a_claim_leaves(self, which: int) -> None:
        if self.held:
            self.fleet.leave(self.held.pop(which % len(self.held)))
        self.a_caller_claims("nic-vf:1")  # before the scheduler's next round
        self.serve_the_queues()

    @rule(which=some)
    def a_waiting_claim_is_released(self, which: int) -> None:
        if self.places:
            claim_id = list(self.places)[which % len(self.places)]
            assert self.fleet.scheduler.release(claim_id).status == "released"
            del self.places[claim_id]
        self.serve_the_queues()

    @rule(alias_specs=st.lists(st.sampled_from(ALIAS_SPECS), min_size=1, max_size=3), which=some)
    def several_events_at_once(self, alias_specs: Sequence[str], which: int) -> None:
        """Claims are made, one leaves, a waiting one is released, and two workers serve the queues."""
        calls: list[Callable[[], object]] = [self.fleet.serve, self.fleet.serve]
        calls += [partial(self.fleet.claim, alias_spec) for alias_spec in alias_specs]
        if self.held:
            calls.append(partial(self.fleet.leave, self.held.pop(which % len(self.held))))
        if self.places:
            claim_id = list(self.places)[which % len(self.places)]
            calls.append(partial(self.fleet.scheduler.release, claim_id))
        answers = at_once(calls)
        for answer in answers:
            assert answer is None or isinstance(answer, Claim | ClaimRefused), answers
            if isinstance(answer, Claim) and answer.status == "claimed":
                self.held.append(answer)
            elif isinstance(answer, Claim):  # the answer to the release of the waiting claim
                del self.places[answer.claim_id]
                if answer.status == "releasing":  # it was served before the release
                    self.fleet.leave(answer)
        self.serve_the_queues()

    @rule(host=st.integers(0, len(PORTS) - 1), drained=st.booleans())
    def an_operator_drains_or_undrains_a_port(self, host: int, drained: bool) -> None:
        if drained:
            self.fleet.scheduler.drain(f"h{host}", "flapping", pf(0))
        else:
            self.fleet.scheduler.undrain(f"h{host}", pf(0))
        self.serve_the_queues()

    @rule(host=st.integers(0, len(PORTS) - 1), silent=st.booleans())
    def a_host_falls_silent_or_reports_again(self, host: int, silent: bool) -> None:
        if silent:
            self.fleet.falls_silent(f"h{host}")
        else:
            self.fleet.hosts[f"h{host}"].sign_of_life()
        self.serve_the_queues()

    @invariant()
    def no_rule_is_broken(self) -> None:
        assert self.fleet.faults() == []

    def serve_the_queues(self) -> None:
        """Serve, and check that each queue goes in order of arrival and that reserved ports only empty."""
        self.fleet.serve()
        now = dict(self.fleet.sql("SELECT id, status FROM claims"))
        for alias_spec in ALIAS_SPECS:
            queue = [claim_id for claim_id, place in self.places.items() if place.alias_spec == alias_spec]
            served = [now[claim_id] != "waiting" for claim_id in queue]
            assert served == sorted(served, reverse=True), "a claim overtook another claim in its queue"
        for claim_id in [each for each in self.places if now[each] != "waiting"]:
            del self.places[claim_id]
            self.held.append(self.fleet.scheduler.show(claim_id))
        for claim_id, ports, holders in self.fleet.sql("""
            SELECT reserved_for, array_agg(DISTINCT coalesce(parent_id, id)),
                   array_remove(array_agg(DISTINCT claim_id), NULL)
              FROM pci_devices WHERE reserved_for IS NOT NULL GROUP BY reserved_for
        """):
            place = self.places[claim_id]
            if place.reserved == frozenset(ports):
                assert place.holders >= set(holders), "a new claim got devices of a reserved port"
            place.reserved, place.holders = frozenset(ports), set(holders)
            assert holders, "the reserved ports are empty, but the claim was not served"

    def serve_every_waiting_claim(self) -> None:
        """All holders leave one by one. Each time, new VF claims come before the queues are served."""
        for number, _ in enumerate(PORTS):
            self.fleet.hosts[f"h{number}"].sign_of_life()
            self.fleet.scheduler.undrain(f"h{number}", pf(0))
        self.serve_the_queues()
        most = 4 * (len(self.places) + 1) * (len(self.held) + len(self.places) + 2 * sum(PORTS))
        for _ in range(most):
            if not self.places:
                return
            self.fleet.leave(self.held.pop(0))
            for alias_spec in VF_SPECS * 2:
                self.a_caller_claims(alias_spec)
            self.serve_the_queues()
        raise AssertionError(f"{self.places} still wait")


def test_every_waiting_claim_is_served_whatever_others_claim(database_url: str) -> None:
    run(lambda: Waiting(database_url))


def run(machine: Callable[[], Waiting]) -> None:
    """Let such machines do what Hypothesis draws."""
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]  # a factory works too
        settings=settings(
            max_examples=short_or_long(12, 400),
            stateful_step_count=short_or_long(20, 40),
            derandomize=not IS_LONG,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
