"""A claim comes before its instance: its devices are prepared, then attached when the instance comes."""

from typing import Any

import pytest

from portclaim.common.errors import ClaimConflict, ClaimNotFound, MoveConflict, StaleStep
from portclaim.common.rpc.claim_messages import Claim
from tests.support.fleet import Fleet, Host, pf, vf


@pytest.fixture(autouse=True)
def host(fleet: Fleet) -> Host:
    """One port with two VFs."""
    return fleet.host("h1", ports=1, vfs=2)


def prepared(fleet: Fleet, alias: str = "nic-vf:1", **request: Any) -> Claim:
    claim = fleet.claim(alias, **request)
    fleet.hosts["h1"].prepared(claim)
    return fleet.show(claim)


def history(fleet: Fleet, claim: Claim) -> list[tuple[str, str]]:
    return fleet.sql(
        "SELECT to_status, cause FROM claim_events WHERE claim_id = :id ORDER BY id", id=claim.claim_id
    )


def unanswered(fleet: Fleet) -> list[tuple[str, int]]:
    return fleet.sql("SELECT action, step FROM outbox ORDER BY claim_id, step")


class TestPrepared:
    """The host no longer uses the devices, and no guest has them yet."""

    def test_the_claim_holds_its_devices_and_its_step_is_answered(self, fleet: Fleet) -> None:
        claim = prepared(fleet, "nic-pf:1")
        assert claim.status == "prepared"
        assert fleet.status("h1") == {pf(0): "claimed", vf(0, 0): "unclaimable", vf(0, 1): "unclaimable"}
        assert unanswered(fleet) == []
        assert fleet.faults() == []

    def test_when_the_guest_has_the_devices_the_claim_is_allocated(self, fleet: Fleet, host: Host) -> None:
        claim = prepared(fleet, "nic-pf:1")
        host.done(claim)
        assert fleet.show(claim).status == "allocated"
        assert fleet.status("h1") == {pf(0): "allocated", vf(0, 0): "unavailable", vf(0, 1): "unavailable"}
        assert history(fleet, claim) == [
            ("claimed", "claim"),
            ("prepared", "prepare done"),
            ("allocated", "attach done"),
        ]

    def test_a_guest_that_is_there_gets_the_devices_in_one_step(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        host.done(claim)
        assert history(fleet, claim) == [("claimed", "claim"), ("allocated", "attach done")]

    def test_an_attach_that_fails_afterwards_frees_the_devices(self, fleet: Fleet, host: Host) -> None:
        claim = prepared(fleet)
        host.failed(claim, "the guest has no slot left")
        ended = fleet.show(claim)
        assert (ended.status, ended.reason) == ("failed", "the guest has no slot left")
        assert set(fleet.status("h1").values()) == {"available"}

    def test_a_release_takes_the_devices_back(self, fleet: Fleet, host: Host) -> None:
        claim = prepared(fleet)
        assert fleet.release(claim).status == "releasing"
        assert unanswered(fleet) == [("detach", 2)]
        assert set(fleet.status("h1").values()) == {"claimed", "unclaimable", "available"}
        host.done(claim)
        assert fleet.show(claim).status == "released"
        assert set(fleet.status("h1").values()) == {"available"}

    def test_a_host_that_is_lost_can_be_given_up(self, fleet: Fleet) -> None:
        claim = prepared(fleet)
        fleet.falls_silent("h1")
        assert fleet.force(claim).status == "released"
        assert fleet.faults() == []

    def test_the_same_answer_again_changes_nothing(self, fleet: Fleet, host: Host) -> None:
        claim = prepared(fleet)
        before = fleet.contents()
        host.prepared(claim)
        assert fleet.contents() == before

    def test_the_answer_that_comes_after_the_guest_changes_nothing(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        host.done(claim)
        before = fleet.contents()
        host.prepared(claim)
        assert fleet.contents() == before

    def test_the_answer_that_comes_after_a_release_is_refused_as_stale(
        self, fleet: Fleet, host: Host
    ) -> None:
        claim = fleet.claim("nic-vf:1")
        fleet.release(claim)
        with pytest.raises(StaleStep):
            host.prepared(claim, step=1)

    def test_a_repeated_claim_call_answers_the_prepared_claim(self, fleet: Fleet) -> None:
        claim = prepared(fleet)
        again = fleet.claim("nic-vf:1", claim.claim_id, claim.instance_id)
        assert again == fleet.show(claim).model_copy(update={"move": None})

    def test_an_agent_that_restarts_is_told_to_go_on(self, fleet: Fleet, host: Host) -> None:
        claim = prepared(fleet)
        assert [(h.claim_id, h.status, h.attach) for h in host.holdings()] == [
            (claim.claim_id, "prepared", "auto")
        ]


class TestAGuestThatDoesNotCome:
    def late(self, fleet: Fleet, claim: Claim, seconds: int) -> None:
        """Make it look as if the claim had been prepared so many seconds ago."""
        fleet.sql(
            "UPDATE claims SET prepared_at = prepared_at - make_interval(secs => :seconds),"
            " guest_deadline = guest_deadline - make_interval(secs => :seconds) WHERE id = :id",
            seconds=seconds,
            id=claim.claim_id,
        )

    def test_the_claim_expires_and_says_why(self, fleet: Fleet, host: Host) -> None:
        claim = prepared(fleet)
        assert fleet.expire() == []
        self.late(fleet, claim, 3601)
        assert fleet.expire() == [claim.claim_id]
        host.done(claim)
        ended = fleet.show(claim)
        assert (ended.status, ended.reason) == (
            "expired",
            "its instance did not get the devices within 3600 s of their preparation",
        )
        assert set(fleet.status("h1").values()) == {"available"}

    def test_a_claim_can_ask_for_another_time(self, fleet: Fleet) -> None:
        claim = prepared(fleet, guest_within=60)
        self.late(fleet, claim, 59)
        assert fleet.expire() == []
        self.late(fleet, claim, 2)
        assert fleet.expire() == [claim.claim_id]

    def test_a_claim_can_ask_for_any_time(self, fleet: Fleet) -> None:
        claim = prepared(fleet, guest_within=0)
        assert claim.guest_deadline is None
        self.late(fleet, claim, 10**8)
        assert fleet.expire() == []

    def test_the_time_until_it_is_prepared_does_not_count(self, fleet: Fleet) -> None:
        claim = prepared(fleet)
        fleet.sql("UPDATE claims SET created_at = now() - interval '1 day'")
        assert fleet.expire(after=1800.0) == []
        assert fleet.show(claim).status == "prepared"

    def test_a_guest_that_came_in_time_keeps_its_devices(self, fleet: Fleet, host: Host) -> None:
        claim = prepared(fleet)
        host.done(claim)
        self.late(fleet, claim, 3601)
        assert fleet.expire() == []


class TestOnCall:
    """The agent only prepares the devices, until the caller asks for the attach."""

    def test_the_first_step_only_prepares(self, fleet: Fleet, host: Host) -> None:
        claim = prepared(fleet, attach="on-call")
        assert claim.attach == "on-call"
        assert [(step.action, step.step) for _, step in fleet.sent] == [("prepare", 1)]
        assert [(h.status, h.attach) for h in host.holdings()] == [("prepared", "on-call")]

    def test_the_call_sends_the_next_step(self, fleet: Fleet, host: Host) -> None:
        claim = prepared(fleet, attach="on-call")
        called = fleet.attach(claim)
        assert (called.status, called.step) == ("prepared", 2)
        assert [(step.action, step.step) for _, step in fleet.sent] == [("prepare", 1), ("attach", 2)]
        assert unanswered(fleet) == [("attach", 2)]
        host.done(claim)
        assert fleet.show(claim).status == "allocated"
        assert unanswered(fleet) == []

    def test_a_call_before_the_guest_comes_is_remembered(self, fleet: Fleet, host: Host) -> None:
        claim = prepared(fleet, attach="on-call")
        fleet.attach(claim)
        host.prepared(claim)
        assert unanswered(fleet) == []
        assert [(h.status, h.attach) for h in host.holdings()] == [("prepared", "auto")]

    def test_a_call_before_the_devices_are_prepared_replaces_that_step(
        self, fleet: Fleet, host: Host
    ) -> None:
        claim = fleet.claim("nic-vf:1", attach="on-call")
        fleet.attach(claim)
        assert unanswered(fleet) == [("attach", 2)]
        with pytest.raises(StaleStep):
            host.prepared(claim, step=1)
        host.done(claim)
        assert fleet.show(claim).status == "allocated"

    def test_an_answer_is_lost_and_the_step_is_sent_again(self, fleet: Fleet) -> None:
        fleet.claim("nic-vf:1", attach="on-call")
        fleet.sql("UPDATE outbox SET send_after = now()")
        fleet.relay().send_due()
        assert [(step.action, step.step) for _, step in fleet.sent] == [("prepare", 1), ("prepare", 1)]

    def test_the_same_call_again_changes_nothing(self, fleet: Fleet) -> None:
        claim = prepared(fleet, attach="on-call")
        fleet.attach(claim)
        before = fleet.contents()
        assert fleet.attach(claim).step == 2
        assert fleet.contents() == before

    def test_a_caller_may_attach_them_without_the_call(self, fleet: Fleet, host: Host) -> None:
        claim = prepared(fleet, attach="on-call")
        host.done(claim)
        assert fleet.show(claim).status == "allocated"

    def test_a_claim_with_auto_does_not_change(self, fleet: Fleet) -> None:
        claim = prepared(fleet)
        before = fleet.contents()
        assert fleet.attach(claim) == fleet.show(claim).model_copy(update={"move": None})
        assert fleet.contents() == before

    def test_a_claim_that_has_ended_does_not_change(self, fleet: Fleet) -> None:
        claim = prepared(fleet, attach="on-call")
        fleet.leave(claim)
        assert fleet.attach(claim).status == "released"

    def test_there_is_no_such_claim(self, fleet: Fleet) -> None:
        claim = fleet.claim("nic-vf:1")
        with pytest.raises(ClaimNotFound):
            fleet.attach(claim.model_copy(update={"claim_id": claim.instance_id}))

    def test_the_mode_is_part_of_the_request(self, fleet: Fleet) -> None:
        claim = fleet.claim("nic-vf:1", attach="on-call")
        with pytest.raises(ClaimConflict):
            fleet.claim("nic-vf:1", claim.claim_id, claim.instance_id)


class TestInAQueue:
    def test_claims_of_both_modes_wait_in_one_queue(self, fleet: Fleet) -> None:
        holder = fleet.attached(fleet.claim("nic-pf:1"))
        first = fleet.claim("nic-vf:2", attach="on-call", wait=600)
        second = fleet.claim("nic-vf:2", wait=600, guest_within=5)
        assert fleet.sql("SELECT array_agg(position ORDER BY position) FROM waiting") == [([1, 2],)]
        fleet.leave(holder)
        fleet.serve()
        assert [fleet.show(claim).status for claim in (first, second)] == ["claimed", "waiting"]
        assert unanswered(fleet) == [("prepare", 1)]

    def test_a_call_while_it_waits_is_remembered(self, fleet: Fleet) -> None:
        holder = fleet.attached(fleet.claim("nic-pf:1"))
        claim = fleet.claim("nic-vf:2", attach="on-call", wait=600)
        assert fleet.attach(claim).status == "waiting"
        fleet.leave(holder)
        fleet.serve()
        assert unanswered(fleet) == [("attach", 1)]


class TestAMove:
    @pytest.fixture(autouse=True)
    def other(self, fleet: Fleet) -> Host:
        return fleet.host("h2", ports=1, vfs=2)

    def test_the_source_stays_until_the_guest_has_the_target(self, fleet: Fleet, other: Host) -> None:
        source = fleet.attached(fleet.claim("nic-vf:1", hosts=["h1"]))
        move = fleet.move(source)
        other.prepared(move.target)
        assert fleet.complete(move).status == "completing"
        assert [fleet.show(claim).status for claim in (source, move.target)] == ["allocated", "prepared"]
        other.done(move.target)
        assert [fleet.show(claim).status for claim in (source, move.target)] == ["releasing", "allocated"]

    def test_a_prepared_target_can_be_reverted(self, fleet: Fleet, other: Host) -> None:
        source = fleet.attached(fleet.claim("nic-vf:1", hosts=["h1"]))
        move = fleet.move(source)
        other.prepared(move.target)
        assert fleet.revert(move).status == "reverted"
        assert [fleet.show(claim).status for claim in (source, move.target)] == ["allocated", "releasing"]

    def test_a_prepared_claim_cannot_be_moved(self, fleet: Fleet) -> None:
        with pytest.raises(MoveConflict, match="only an allocated claim"):
            fleet.move(prepared(fleet, hosts=["h1"]))
