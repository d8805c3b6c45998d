"""Moves that end without a call: the end of one claim ends the move; the other claim is not touched."""

from datetime import timedelta

import pytest

from portclaim.common.db.pruning import Pruning
from portclaim.common.errors import MoveConflict, MoveNotFound
from portclaim.common.rpc.claim_messages import Claim
from tests.support.fleet import Fleet, pf
from tests.support.moves import instance_on_h1, reason, standing


@pytest.fixture
def source(fleet: Fleet) -> Claim:
    return instance_on_h1(fleet)


@pytest.mark.parametrize("completing", [False, True])
def test_a_failed_attach_of_the_target_reverts_the_move(
    fleet: Fleet, source: Claim, completing: bool
) -> None:
    move = fleet.move(source)
    if completing:
        fleet.complete(move)
    fleet.hosts[move.target.host].failed(move.target, "no such instance")
    assert standing(fleet, move) == ("reverted", "allocated", "failed")
    assert reason(fleet, move) == "its target is now failed: no such instance"
    with pytest.raises(MoveConflict, match="no such instance"):
        fleet.complete(move)
    assert fleet.revert(move).status == "reverted"


def test_a_target_whose_instance_is_gone_reverts_the_move(fleet: Fleet, source: Claim) -> None:
    move = fleet.move(source)
    fleet.attached(move.target)
    fleet.hosts[move.target.host].failed(move.target, "its instance is gone")
    assert standing(fleet, move) == ("reverted", "allocated", "failed")


def test_a_target_that_is_not_attached_in_time_reverts_the_move(fleet: Fleet, source: Claim) -> None:
    move = fleet.move(source)
    fleet.complete(move)
    fleet.falls_silent(move.target.host)
    fleet.sql("UPDATE claims SET created_at = '2000-01-01'")
    assert fleet.expire() == [move.target.claim_id]
    assert standing(fleet, move) == ("reverted", "allocated", "releasing")
    assert reason(fleet, move) == "its target is now releasing: not prepared within 1800 s"
    fleet.hosts[move.target.host].done(move.target)
    assert standing(fleet, move) == ("reverted", "allocated", "expired")


def test_releasing_the_target_reverts_the_move(fleet: Fleet, source: Claim) -> None:
    move = fleet.move(source)
    fleet.release(move.target)
    assert standing(fleet, move) == ("reverted", "allocated", "releasing")
    assert reason(fleet, move) == "its target is now releasing"


def test_releasing_the_target_by_force_reverts_the_move(fleet: Fleet, source: Claim) -> None:
    move = fleet.move(source)
    fleet.falls_silent(move.target.host)
    fleet.force(move.target)
    assert standing(fleet, move) == ("reverted", "allocated", "released")


def test_removing_the_host_of_the_target_reverts_the_move(fleet: Fleet, source: Claim) -> None:
    move = fleet.move(source)
    fleet.falls_silent(move.target.host)
    fleet.scheduler.remove_host(move.target.host, "ann", "sold", force=True)
    assert standing(fleet, move) == ("reverted", "allocated", "released")


@pytest.mark.parametrize("completing", [False, True])
def test_releasing_the_source_by_force_completes_the_move(
    fleet: Fleet, source: Claim, completing: bool
) -> None:
    move = fleet.move(source)
    if completing:
        fleet.complete(move)
    fleet.falls_silent("h1")
    fleet.force(source)
    assert standing(fleet, move) == ("completed", "released", "claimed")
    assert (reason(fleet, move) or "").startswith("its source is now released: released by force, by ann")
    assert fleet.complete(move).status == "completed"
    with pytest.raises(MoveConflict):
        fleet.revert(move)
    fleet.hosts[move.target.host].done(move.target)
    assert standing(fleet, move) == ("completed", "released", "allocated")


def test_releasing_the_source_completes_the_move(fleet: Fleet, source: Claim) -> None:
    move = fleet.move(source)
    assert fleet.release(source).status == "releasing"
    assert standing(fleet, move) == ("completed", "releasing", "claimed")
    assert reason(fleet, move) == "its source is now releasing"
    fleet.attached(move.target)


def test_a_source_whose_instance_is_gone_completes_the_move(fleet: Fleet, source: Claim) -> None:
    move = fleet.move(source)
    fleet.hosts["h1"].failed(source, "its instance is gone")
    assert standing(fleet, move) == ("completed", "failed", "claimed")


def test_deleting_an_instance_during_its_move_frees_all_devices(fleet: Fleet, source: Claim) -> None:
    move = fleet.move(source)
    for end in (move.target, move.source):
        fleet.hosts[end.host].done(fleet.release(end))
    assert standing(fleet, move) == ("reverted", "released", "released")
    assert {status for host in fleet.hosts for status in fleet.status(host).values()} == {"available"}


def test_draining_either_host_does_not_stop_the_move(fleet: Fleet, source: Claim) -> None:
    move = fleet.move(source)
    fleet.scheduler.drain("h1", "new fan")
    fleet.scheduler.drain(move.target.host, "flapping", pf(0))
    fleet.complete(move)
    fleet.attached(move.target)
    assert standing(fleet, move) == ("completed", "releasing", "allocated")


def test_pruning_an_ended_claim_deletes_its_moves(fleet: Fleet, source: Claim) -> None:
    move = fleet.move(source)
    fleet.attached(move.target)
    fleet.complete(move)
    fleet.hosts["h1"].done(source)
    fleet.sql("UPDATE claims SET updated_at = '2000-01-01'")
    Pruning(fleet.engine, timedelta(days=90)).work()
    assert fleet.show(move.target).move is None
    with pytest.raises(MoveNotFound):
        fleet.complete(move)
