"""Live migration: the guest runs on while its devices are exchanged for those of another host."""

from typing import Any

import pytest

from portclaim import hostdev_xml, migration_xml
from portclaim.common.errors import ClaimConflict, InvalidRequest
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.move_messages import Move
from tests.support.fleet import Fleet, Host, pf, vf
from tests.support.moves import causes, reason, standing


def hosts(fleet: Fleet, **facts: Any) -> None:
    for name in ("h1", "h2"):
        fleet.host(name, ports=1, vfs=2, **facts)


def moved(fleet: Fleet, alias: str = "nic-vf:1") -> Move:
    """A live move from h1 to h2 that has begun."""
    return fleet.move(fleet.attached(fleet.claim(alias, hosts=["h1"])), live=True)


def unanswered(fleet: Fleet, claim: Claim) -> list[tuple[str, int]]:
    return fleet.sql("SELECT action, step FROM outbox WHERE claim_id = :id", id=claim.claim_id)


def is_ready(fleet: Fleet, move: Move) -> bool:
    """Repeat the call that began the move. It answers how the move stands."""
    return fleet.scheduler.move(fleet.requests[move.target.claim_id]).ready


class TestDevicesThatCannotGoWithTheGuest:
    @pytest.fixture(autouse=True)
    def two_hosts(self, fleet: Fleet) -> None:
        hosts(fleet)

    def test_the_source_keeps_its_devices_until_the_target_is_prepared(self, fleet: Fleet) -> None:
        move = moved(fleet)
        assert (move.kind, move.ready) == ("live", False)
        assert standing(fleet, move) == ("begun", "allocated", "claimed")
        assert unanswered(fleet, move.source) == []

    def test_then_they_are_unplugged(self, fleet: Fleet) -> None:
        move = moved(fleet)
        fleet.hosts["h2"].prepared(move.target)
        assert unanswered(fleet, move.source) == [("unplug", 2)]
        assert not is_ready(fleet, move)
        fleet.hosts["h1"].prepared(move.source)
        assert standing(fleet, move) == ("begun", "prepared", "prepared")
        assert fleet.status("h1")[vf(0, 0)] == "claimed"
        assert unanswered(fleet, move.source) == []
        assert is_ready(fleet, move)
        assert fleet.faults() == []

    def test_when_the_guest_has_the_devices_of_the_target_the_source_is_released(self, fleet: Fleet) -> None:
        move = moved(fleet)
        fleet.hosts["h2"].prepared(move.target)
        fleet.hosts["h1"].prepared(move.source)
        fleet.hosts["h2"].done(move.target)
        assert standing(fleet, move) == ("completed", "releasing", "allocated")
        fleet.hosts["h1"].done(move.source)
        assert standing(fleet, move) == ("completed", "released", "allocated")
        assert set(fleet.status("h1").values()) == {"available"}
        assert causes(fleet, move.source)[2:4] == ["unplug done", f"moved to claim {move.target.claim_id}"]

    @pytest.mark.parametrize("is_unplugged", [True, False], ids=["unplugged", "not unplugged yet"])
    def test_a_move_that_is_reverted_gives_the_guest_its_devices_back(
        self, fleet: Fleet, is_unplugged: bool
    ) -> None:
        move = moved(fleet)
        fleet.hosts["h2"].prepared(move.target)
        if is_unplugged:
            fleet.hosts["h1"].prepared(move.source)
        fleet.revert(move)
        assert unanswered(fleet, move.source) == [("attach", 3)]
        fleet.hosts["h1"].done(move.source)
        assert standing(fleet, move) == ("reverted", "allocated", "releasing")
        assert unanswered(fleet, move.source) == []
        assert fleet.status("h1")[vf(0, 0)] == "allocated"
        assert fleet.faults() == []

    def test_a_guest_that_does_not_arrive_in_time_gets_its_devices_back(self, fleet: Fleet) -> None:
        move = moved(fleet)
        fleet.hosts["h2"].prepared(move.target)
        fleet.hosts["h1"].prepared(move.source)
        fleet.sql("UPDATE claims SET guest_deadline = now() WHERE id = :id", id=move.target.claim_id)
        assert fleet.expire() == [move.target.claim_id]  # the source waits for any time
        assert unanswered(fleet, move.source) == [("attach", 3)]
        fleet.hosts["h1"].done(move.source)
        fleet.hosts["h2"].done(move.target)
        assert standing(fleet, move) == ("reverted", "allocated", "expired")
        assert "did not get the devices" in (reason(fleet, move) or "")

    def test_a_target_whose_attach_fails_gives_the_guest_its_devices_back(self, fleet: Fleet) -> None:
        move = moved(fleet)
        fleet.hosts["h2"].prepared(move.target)
        fleet.hosts["h1"].prepared(move.source)
        fleet.hosts["h2"].failed(move.target, "the guest has no slot left")
        assert standing(fleet, move)[0] == "reverted"
        assert unanswered(fleet, move.source) == [("attach", 3)]

    def test_a_move_that_is_reverted_before_the_target_is_prepared_changes_nothing_at_the_source(
        self, fleet: Fleet
    ) -> None:
        move = moved(fleet)
        fleet.revert(move)
        assert unanswered(fleet, move.source) == []
        assert fleet.show(move.source).step == 1

    def test_a_guest_that_does_not_release_a_device_is_asked_again(self, fleet: Fleet) -> None:
        move = moved(fleet)
        fleet.hosts["h2"].prepared(move.target)
        fleet.hosts["h1"].failed(move.source, "the guest does not let go")
        source = fleet.show(move.source)
        assert (source.status, source.reason) == ("allocated", "the guest does not let go")
        assert unanswered(fleet, move.source) == [("unplug", 2)]
        fleet.hosts["h1"].prepared(move.source)
        assert (fleet.show(move.source).status, fleet.show(move.source).reason) == ("prepared", None)

    def test_a_guest_that_is_there_before_the_unplug_is_answered_ends_the_move(self, fleet: Fleet) -> None:
        move = moved(fleet)
        fleet.hosts["h2"].prepared(move.target)
        fleet.hosts["h2"].done(move.target)
        assert standing(fleet, move) == ("completed", "releasing", "allocated")
        assert unanswered(fleet, move.source) == [("detach", 3)]

    def test_an_agent_that_restarts_is_told_to_unplug(self, fleet: Fleet) -> None:
        move = moved(fleet)
        fleet.hosts["h2"].prepared(move.target)
        [held] = fleet.hosts["h1"].holdings()
        assert (held.status, held.awaited, held.step) == ("allocated", "unplug", 2)

    def test_the_relay_sends_the_step(self, fleet: Fleet) -> None:
        move = moved(fleet)
        fleet.hosts["h2"].prepared(move.target)
        fleet.sent.clear()
        fleet.relay().send_due()
        assert [(host, step.action, step.claim_id) for host, step in fleet.sent] == [
            ("h1", "unplug", move.source.claim_id)
        ]

    def test_a_whole_port_moves_too(self, fleet: Fleet) -> None:
        move = moved(fleet, "nic-pf:1")
        fleet.hosts["h2"].prepared(move.target)
        fleet.hosts["h1"].prepared(move.source)
        assert fleet.status("h1") == {pf(0): "claimed", vf(0, 0): "unavailable", vf(0, 1): "unavailable"}
        fleet.revert(move)
        fleet.hosts["h1"].done(move.source)
        assert fleet.status("h1") == {pf(0): "allocated", vf(0, 0): "unavailable", vf(0, 1): "unavailable"}
        assert fleet.faults() == []

    def test_the_source_can_be_released_meanwhile(self, fleet: Fleet) -> None:
        move = moved(fleet)
        fleet.hosts["h2"].prepared(move.target)
        fleet.hosts["h1"].prepared(move.source)
        fleet.leave(move.source)
        assert standing(fleet, move) == ("completed", "released", "prepared")

    def test_live_is_part_of_the_request(self, fleet: Fleet) -> None:
        move = moved(fleet)
        request = fleet.requests[move.target.claim_id]
        with pytest.raises(ClaimConflict):
            fleet.scheduler.move(request.model_copy(update={"live": False}))


class TestDevicesThatGoWithTheGuest:
    def test_nothing_is_unplugged(self, fleet: Fleet) -> None:
        hosts(fleet, tags={"live_migratable": "true"})
        move = moved(fleet)
        fleet.hosts["h2"].prepared(move.target)
        assert unanswered(fleet, move.source) == []
        assert is_ready(fleet, move)
        fleet.hosts["h2"].done(move.target)
        assert standing(fleet, move) == ("completed", "releasing", "allocated")

    def test_only_the_others_are_unplugged(self, fleet: Fleet) -> None:
        hosts(fleet, tags={"live_migratable": "true"})
        for name in ("h1", "h2"):
            fleet.hosts[name].change(vf(0, 1), tags={"live_migratable": "false"})
            fleet.hosts[name].report()
        move = moved(fleet, "nic-vf:2")
        fleet.hosts["h2"].prepared(move.target)
        fleet.sent.clear()
        fleet.relay().send_due()
        [(_, step)] = fleet.sent
        assert (step.action, [device.address for device in step.devices]) == ("unplug", [vf(0, 1)])
        first, _ = hostdev_xml(move.target)
        assert migration_xml(move) == {vf(0, 0): first}

    def test_the_definition_for_the_migration_names_the_device_of_the_target(self, fleet: Fleet) -> None:
        hosts(fleet, tags={"live_migratable": "true"})
        fleet.hosts["h2"].change(vf(0, 0), unusable_reason="not in order")
        fleet.hosts["h2"].report()
        move = moved(fleet)
        [address] = [device.address for device in move.target.devices]
        assert address == vf(0, 1)
        assert migration_xml(move) == {vf(0, 0): hostdev_xml(move.target)[0]}
        assert f'name="ua-portclaim-{move.target.claim_id}' in migration_xml(move)[vf(0, 0)]

    def test_a_guest_that_is_resized_cannot_take_devices_with_it(self, fleet: Fleet) -> None:
        hosts(fleet, tags={"live_migratable": "true"})
        source = fleet.attached(fleet.claim("nic-vf:1", hosts=["h1"]))
        move = fleet.move(source, alias="nic-vf:2", live=True)
        with pytest.raises(InvalidRequest, match="has other devices"):
            migration_xml(move)


def test_a_cold_move_unplugs_nothing(fleet: Fleet) -> None:
    hosts(fleet)
    source = fleet.attached(fleet.claim("nic-vf:1", hosts=["h1"]))
    move = fleet.move(source)
    host: Host = fleet.hosts["h2"]
    host.prepared(move.target)
    assert unanswered(fleet, source) == []
    assert (move.kind, move.ready) == ("cold", False)
