"""Moves: an instance keeps its devices on the old host until it has devices on the new one."""

from functools import partial
from uuid import uuid4

import pytest
import sqlalchemy as sa

from portclaim.common.errors import (
    ClaimConflict,
    ClaimNotFound,
    ClaimRefused,
    InvalidRequest,
    MoveConflict,
    MoveNotFound,
)
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.move_messages import Move
from tests.support.concurrency import at_once
from tests.support.fleet import Fleet
from tests.support.moves import causes, instance_on_h1, standing


@pytest.fixture
def source(fleet: Fleet) -> Claim:
    return instance_on_h1(fleet)


class TestBegin:
    def test_a_move_claims_the_same_requests_on_another_host_and_keeps_the_source(
        self, fleet: Fleet, source: Claim
    ) -> None:
        move = fleet.move(source)
        assert (move.status, move.source.status, move.target.status) == ("begun", "allocated", "claimed")
        assert move.target.host != "h1"
        assert move.target.instance_id == source.instance_id
        assert [device.dev_type for device in move.target.devices] == ["type-VF"] * 2
        assert fleet.sent[-1][0] == move.target.host
        assert (fleet.sent[-1][1].action, fleet.sent[-1][1].claim_id) == ("attach", move.target.claim_id)
        assert causes(fleet, move.target) == [f"move of claim {source.claim_id}"]

    def test_a_resize_claims_other_requests(self, fleet: Fleet, source: Claim) -> None:
        move = fleet.move(source, alias="nic-pf:1", hosts=["h3"])
        assert [(move.target.host, device.dev_type) for device in move.target.devices] == [("h3", "type-PF")]

    def test_a_claim_made_for_one_host_can_move_to_any_other(self, fleet: Fleet, source: Claim) -> None:
        assert fleet.move(source).target.host in {"h2", "h3"}

    def test_an_instance_cannot_move_to_the_host_where_it_is(self, fleet: Fleet, source: Claim) -> None:
        with pytest.raises(ClaimRefused, match="every host with such a device is excluded by avoid_hosts"):
            fleet.move(source, hosts=["h1"])
        fleet.scheduler.drain("h2", "new fan")
        fleet.scheduler.drain("h3", "new fan")
        before = fleet.contents()
        with pytest.raises(ClaimRefused):
            fleet.move(source)
        assert fleet.contents() == before

    @pytest.mark.parametrize("alias_spec", ["nic-vf:2", "nic-pf:1,nic-vf:1"])
    @pytest.mark.usefixtures("source")
    def test_repeating_a_move_returns_the_same_move(self, fleet: Fleet, alias_spec: str) -> None:
        source = fleet.attached(fleet.claim(alias_spec))
        move = fleet.move(source)
        before = fleet.contents()
        assert fleet.move(source, move.target.claim_id) == move
        assert fleet.contents() == before
        answers = at_once([partial(fleet.move, source, move.target.claim_id)] * 4)
        assert answers == [move] * 4

    def test_repeating_a_move_that_has_ended_says_how_it_ended(self, fleet: Fleet, source: Claim) -> None:
        move = fleet.move(source)
        fleet.attached(move.target)
        completed = fleet.complete(move)
        fleet.hosts["h1"].done(source)
        again = fleet.move(source, move.target.claim_id)
        assert (again.status, again.source.status) == ("completed", "released")
        assert again.target == completed.target

    def test_of_concurrent_moves_of_one_claim_only_one_begins(self, fleet: Fleet, source: Claim) -> None:
        answers = at_once([partial(fleet.move, source) for _ in range(6)])
        begun = [answer for answer in answers if isinstance(answer, Move)]
        assert len(begun) == 1
        refused = [answer for answer in answers if isinstance(answer, MoveConflict)]
        assert len(refused) == 5, answers
        assert all(str(begun[0].target.claim_id) in str(error) for error in refused)

    def test_the_target_id_of_a_move_cannot_be_used_for_another_request(
        self, fleet: Fleet, source: Claim
    ) -> None:
        move = fleet.move(source)
        before = fleet.contents()
        with pytest.raises(ClaimConflict):
            fleet.move(source, move.target.claim_id, alias="nic-vf:1")
        with pytest.raises(ClaimConflict):
            fleet.move(source, source.claim_id)
        assert fleet.contents() == before

    def test_the_id_of_a_plain_claim_cannot_be_the_target_of_a_move(
        self, fleet: Fleet, source: Claim
    ) -> None:
        plain = fleet.claim("nic-vf:2", instance_id=source.instance_id, avoid_hosts=["h1"])
        with pytest.raises(ClaimConflict, match="not for a move of claim"):
            fleet.move(source, plain.claim_id)

    @pytest.mark.usefixtures("source")
    def test_only_an_allocated_claim_can_be_moved(self, fleet: Fleet) -> None:
        claim = fleet.claim("nic-vf:1")
        with pytest.raises(MoveConflict, match="is claimed: only an allocated claim can be moved"):
            fleet.move(claim)
        fleet.attached(claim)
        fleet.release(claim)
        with pytest.raises(MoveConflict, match="is releasing"):
            fleet.move(claim)

    def test_neither_claim_of_a_live_move_can_be_moved_again(self, fleet: Fleet, source: Claim) -> None:
        move = fleet.move(source)
        fleet.attached(move.target)
        for end in (move.source, move.target):
            with pytest.raises(MoveConflict, match="complete or revert that move first"):
                fleet.move(end)
        fleet.complete(move)
        assert fleet.move(move.target).source.claim_id == move.target.claim_id

    def test_unknown_claims_moves_and_aliases_are_refused(self, fleet: Fleet, source: Claim) -> None:
        before = fleet.contents()
        with pytest.raises(ClaimNotFound):
            fleet.move(source.model_copy(update={"claim_id": uuid4()}))
        with pytest.raises(InvalidRequest, match="'nic' is no alias"):
            fleet.move(source, alias="nic:1")
        for call in (fleet.scheduler.complete_move, fleet.scheduler.revert_move):
            with pytest.raises(MoveNotFound, match="there is no move to claim"):
                call(source.claim_id)
        assert fleet.contents() == before


class TestComplete:
    def test_completing_after_the_attach_releases_the_source(self, fleet: Fleet, source: Claim) -> None:
        move = fleet.move(source)
        fleet.attached(move.target)
        assert standing(fleet, move) == ("begun", "allocated", "allocated")
        completed = fleet.complete(move)
        assert (completed.status, completed.source.status) == ("completed", "releasing")
        host, step = fleet.sent[-1]
        assert (host, step.action, step.claim_id) == ("h1", "detach", source.claim_id)
        fleet.hosts["h1"].done(source)
        assert standing(fleet, move) == ("completed", "released", "allocated")
        assert causes(fleet, source)[2:] == [f"moved to claim {move.target.claim_id}", "detach done"]
        assert set(fleet.status("h1").values()) == {"available"}

    def test_completing_before_the_attach_releases_the_source_once_it_is_attached(
        self, fleet: Fleet, source: Claim
    ) -> None:
        move = fleet.move(source)
        assert fleet.complete(move).status == "completing"
        assert standing(fleet, move) == ("completing", "allocated", "claimed")
        fleet.sent.clear()
        fleet.hosts[move.target.host].done(move.target)
        assert standing(fleet, move) == ("completed", "releasing", "allocated")
        fleet.relay().send_due()
        assert [(host, step.action, step.claim_id) for host, step in fleet.sent] == [
            ("h1", "detach", source.claim_id)
        ]

    def test_the_attach_of_a_completing_move_wakes_the_relays(self, fleet: Fleet, source: Claim) -> None:
        move = fleet.move(source)
        fleet.complete(move)
        with fleet.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("LISTEN portclaim_outbox"))
            fleet.hosts[move.target.host].done(move.target)
            driver = connection.connection.dbapi_connection
            connection.execute(sa.text("UNLISTEN portclaim_outbox"))
            assert [notice.channel for notice in driver.notifies] == ["portclaim_outbox"]

    @pytest.mark.parametrize("is_attached", [False, True])
    def test_completing_twice_changes_nothing(self, fleet: Fleet, source: Claim, is_attached: bool) -> None:
        move = fleet.move(source)
        if is_attached:
            fleet.attached(move.target)
        first = fleet.complete(move)
        before = fleet.contents()
        assert fleet.complete(move) == first
        assert fleet.contents() == before

    def test_a_reverted_move_cannot_be_completed(self, fleet: Fleet, source: Claim) -> None:
        move = fleet.move(source)
        fleet.revert(move)
        before = fleet.contents()
        with pytest.raises(MoveConflict, match="was reverted"):
            fleet.complete(move)
        assert fleet.contents() == before

    def test_devices_on_a_silent_source_host_stay_held_until_its_agent_detaches_them(
        self, fleet: Fleet, source: Claim
    ) -> None:
        move = fleet.move(source)
        fleet.falls_silent("h1")
        fleet.attached(move.target)
        fleet.complete(move)
        assert fleet.status("h1")[source.devices[0].address] == "allocated"
        assert [held.status for held in fleet.hosts["h1"].holdings()] == ["releasing"]
        fleet.hosts["h1"].done(source)
        assert fleet.show(source).status == "released"


class TestRevert:
    @pytest.mark.parametrize("before_that", ["nothing", "completing", "attached"])
    def test_reverting_releases_the_target_and_keeps_the_source(
        self, fleet: Fleet, source: Claim, before_that: str
    ) -> None:
        move = fleet.move(source)
        if before_that == "attached":
            fleet.attached(move.target)
        if before_that == "completing":
            fleet.complete(move)
        reverted = fleet.revert(move)
        assert (reverted.status, reverted.target.status) == ("reverted", "releasing")
        assert fleet.sent[-1][1].action == "detach"
        before = fleet.contents()
        assert fleet.revert(move) == reverted
        assert fleet.contents() == before
        fleet.hosts[move.target.host].done(move.target)
        assert standing(fleet, move) == ("reverted", "allocated", "released")
        assert causes(fleet, move.target)[-2:] == [f"move of claim {source.claim_id} reverted", "detach done"]
        assert fleet.move(source).status == "begun", "the claim can be moved again"

    def test_a_completed_move_cannot_be_reverted(self, fleet: Fleet, source: Claim) -> None:
        move = fleet.move(source)
        fleet.attached(move.target)
        fleet.complete(move)
        before = fleet.contents()
        with pytest.raises(MoveConflict, match="is completed"):
            fleet.revert(move)
        assert fleet.contents() == before
