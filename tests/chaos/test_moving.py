"""Tests of the moves in the load: each way to end one works on a real database, and faults are found."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from portclaim.common.rpc.agent_messages import Holding
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.common.rpc.move_messages import MoveRequest
from tests.chaos.cycles import Cycle
from tests.chaos.guests import Guests
from tests.chaos.moves import COLD, LIVE, Moving
from tests.chaos.verdict import Verdict
from tests.support.fleet import Fleet, Host

Scripts = tuple[tuple[str, ...], ...]
CALLS = 200  # after so many, a cycle has not come to its end


class Hypervisors:
    """The guests of all hosts. What their agents do is done by ``work``."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.guests: dict[tuple[str, UUID], bool] = {}  # whether it is still arriving
        self.aborted: set[tuple[str, UUID]] = set()
        self.is_quick = True  # the agents see every guest that arrives

    def define(self, host: str, instance_id: UUID, *, arriving: bool = False) -> None:
        self.guests[host, instance_id] = arriving

    def undefine(self, host: str, instance_id: UUID) -> None:
        if self.guests.pop((host, instance_id)) and self.is_quick:
            self.aborted.add((host, instance_id))

    def work(self) -> None:
        for host in self.fleet.hosts.values():
            for held in host.holdings():
                self._continue(host, held)

    def _continue(self, host: Host, held: Holding) -> None:
        claim = self.fleet.scheduler.show(held.claim_id)
        guest = host.name, held.instance_id
        match held.status, held.attach, held.awaited:
            case _, _, "detach":
                host.done(claim)
            case _, _, "unplug":
                host.prepared(claim)
            case "claimed" | "prepared" | "allocated", "auto", _ if self.guests.get(guest) is False:
                host.done(claim)
            case "prepared", "auto", _ if guest in self.aborted:
                host.failed(claim, "the migration was aborted")
            case "claimed", _, _:
                host.prepared(claim)


@pytest.fixture
def hypervisors(fleet: Fleet) -> Hypervisors:
    for name in ("h1", "h2"):
        fleet.host(name, ports=1, vfs=2)
    return Hypervisors(fleet)


def play(work: Cycle | Moving, hypervisors: Hypervisors, until: Callable[[], bool]) -> None:
    for _ in range(CALLS):
        if until():
            return
        work.advance(hypervisors.fleet.scheduler, cast(Guests, hypervisors))
        hypervisors.work()
    raise AssertionError(f"it does not come to an end: {work}")


def begins(hypervisors: Hypervisors, *, is_live: bool, steps: tuple[str, ...], to: str = "h2") -> Moving:
    """The move of a claim on h1 that was made on call and is attached by now."""
    specs = {"pci_passthrough:alias": "nic-vf:1"}
    request = ClaimRequest(
        claim_id=uuid4(), instance_id=uuid4(), extra_specs=specs, hosts=["h1"], attach="on-call"
    )
    source = Cycle("vf", "h1", request, waits_for_attach=True, moves=1, live_moves=int(is_live))
    play(source, hypervisors, until=lambda: source.phase == "move")
    asked = request.model_copy(update={"claim_id": uuid4(), "hosts": [to]})
    move = MoveRequest(claim_id=asked.claim_id, source_claim_id=request.claim_id, hosts=[to], live=is_live)
    source.moves = 0
    return Moving(source, Cycle("vf", to, asked, waits_for_attach=False), move, list(steps))


def ends(moving: Moving, hypervisors: Hypervisors) -> None:
    """Both claims come to their end, and nothing is wrong."""
    for cycle in moving.divide():
        play(cycle, hypervisors, until=lambda cycle=cycle: cycle.is_over)  # type: ignore[misc]
    assert moving.wrong == []
    assert hypervisors.guests == {}
    for host in hypervisors.fleet.hosts:
        assert set(hypervisors.fleet.status(host).values()) == {"available"}
    assert judged(hypervisors, moving) == []


def site(fleet: Fleet) -> Any:
    """What a verdict needs of a site to judge moves."""
    return SimpleNamespace(hosts=list(fleet.hosts), postgresql=SimpleNamespace(ask=fleet.sql))


@pytest.mark.parametrize(("is_live", "scripts"), [(False, COLD), (True, LIVE)], ids=["cold", "live"])
class TestEachWayToEndAMove:
    def test_the_move_ends_as_the_client_wants(
        self, hypervisors: Hypervisors, is_live: bool, scripts: Scripts
    ) -> None:
        for steps in scripts:
            moving = begins(hypervisors, is_live=is_live, steps=steps)
            play(moving, hypervisors, until=lambda: moving.is_over)  # noqa: B023
            assert moving.fate.split()[0] == {"release": "both"}.get(steps[-1].split()[0], steps[-1])
            ends(moving, hypervisors)

    def test_a_host_can_be_lost_after_each_step(
        self, hypervisors: Hypervisors, is_live: bool, scripts: Scripts
    ) -> None:
        for steps in scripts:
            for left in range(1, len(steps)):
                moving = begins(hypervisors, is_live=is_live, steps=steps)
                play(moving, hypervisors, until=lambda: len(moving.steps) <= left)  # noqa: B023
                ends(moving, hypervisors)


def test_an_aborted_migration_that_no_agent_has_seen_is_reverted_by_the_client(
    hypervisors: Hypervisors,
) -> None:
    hypervisors.is_quick = False
    moving = begins(hypervisors, is_live=True, steps=("move", "ready", "arrive", "leave", "reverted"))
    play(moving, hypervisors, until=lambda: moving.is_over)
    assert (moving.fate, moving.target.statuses[-1]) == ("reverted", "released")
    ends(moving, hypervisors)


def test_after_a_refusal_the_source_is_released_and_the_target_does_not_exist(
    hypervisors: Hypervisors,
) -> None:
    hypervisors.fleet.scheduler.drain("h2", "new power supply")
    moving = begins(hypervisors, is_live=True, steps=LIVE[0])
    play(moving, hypervisors, until=lambda: moving.is_over)
    hypervisors.fleet.scheduler.undrain("h2")
    ends(moving, hypervisors)
    assert (moving.fate, moving.target.statuses) == ("refused", [])


def test_a_target_that_fails_without_a_reason_is_wrong(hypervisors: Hypervisors) -> None:
    moving = begins(hypervisors, is_live=True, steps=LIVE[0])
    play(moving, hypervisors, until=lambda: moving.phase == "arrive")
    fleet = hypervisors.fleet
    fleet.hosts["h2"].failed(fleet.scheduler.show(moving.claim_id), "no slot left")
    play(moving, hypervisors, until=lambda: moving.is_over)
    assert any(
        "is live, reverted (its target is now failed: no slot left)" in wrong for wrong in moving.wrong
    )


def test_a_verdict_finds_a_move_that_did_not_end_as_the_client_was_told(hypervisors: Hypervisors) -> None:
    moving = begins(hypervisors, is_live=False, steps=COLD[0])
    play(moving, hypervisors, until=lambda: moving.is_over)
    moving.fate = "reverted"
    assert judged(hypervisors, moving) == [
        f"the cold move to claim {moving.claim_id} (reverted) is cold, completed"
    ]


def test_a_verdict_finds_a_move_that_has_not_ended(hypervisors: Hypervisors) -> None:
    moving = begins(hypervisors, is_live=False, steps=("move",))
    play(moving, hypervisors, until=lambda: moving.is_over)
    moving.fate = "both claims released as the client wanted"
    assert len(judged(hypervisors, moving)) == 1


def test_a_verdict_finds_a_guest_with_devices_of_two_hosts(hypervisors: Hypervisors) -> None:
    moving = begins(hypervisors, is_live=True, steps=("move", "run", "completed"))
    moving.advance(hypervisors.fleet.scheduler, cast(Guests, hypervisors))
    fleet = hypervisors.fleet
    fleet.hosts["h2"].done(fleet.scheduler.show(moving.claim_id))  # before the source is unplugged
    play(moving, hypervisors, until=lambda: moving.is_over)
    assert judged(hypervisors, moving) == [
        f"a guest had devices of two hosts in the move to {moving.claim_id}"
    ]


def judged(hypervisors: Hypervisors, moving: Moving) -> list[str]:
    verdict = Verdict(site(hypervisors.fleet))
    verdict._unchecked_moves = [moving]
    return verdict._compare_moves(["h1", "h2"])
