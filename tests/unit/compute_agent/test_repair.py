"""What should be held against what is."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from portclaim.common.errors import UnknownHost
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Holding, Holdings, Step
from portclaim.services.compute_agent.drivers.simulated import SimulatedDriver
from portclaim.services.compute_agent.ledger import Ending, Ledger, Superseded
from portclaim.services.compute_agent.repair import Repair
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.step_queue import Job

MakeStep = Callable[..., Step]
PF = "0000:02:00.0"
VF = "0000:01:10.0"


class Bench:
    """A repair of one host; the steps it wants are done by the test, or not."""

    def __init__(self, driver: SimulatedDriver, scanner: Scanner, ledger: Ledger) -> None:
        self.driver = driver
        self.ledger = ledger
        self.wanted: list[Job] = []
        self._scanner = scanner
        self.restart()

    def restart(self) -> None:
        self.repair = Repair(self.driver, self._scanner, self.ledger, self.wanted.append)

    def attach(self, step: Step) -> None:
        self.ledger.begin(step)
        for device in step.devices:
            self.driver.attach(step, device)
        self.ledger.finish(step, Ending("done"))


@pytest.fixture
def bench(driver: SimulatedDriver, scanner: Scanner, tmp_path: Path) -> Bench:
    return Bench(driver, scanner, Ledger(tmp_path / "steps.sqlite"))


def told(*live: Holding, ended: Collection[Step] = ()) -> Callable[[Collection[UUID]], Holdings]:
    """A conductor that knows these live claims, and those of ``ended`` as ended."""

    def ask(found: Collection[UUID]) -> Holdings:
        past = {step.claim_id for step in ended}
        return Holdings(holdings=list(live), ended=[claim_id for claim_id in found if claim_id in past])

    return ask


def holding(step: Step, status: str, number: int | None = None) -> Holding:
    return Holding(
        claim_id=step.claim_id,
        instance_id=step.instance_id,
        status=status,
        step=number or step.step,
        devices=step.devices,
    )


def test_what_agrees_is_left_alone(bench: Bench, make_step: MakeStep) -> None:
    step = make_step("attach", VF)
    bench.attach(step)
    bench.repair.run(told(holding(step, "allocated")))
    assert bench.wanted == []


def test_what_a_guest_has_lost_is_attached_again(bench: Bench, make_step: MakeStep) -> None:
    step = make_step("attach", VF, PF)
    bench.attach(step)
    bench.driver.detach(step, step.devices[0])
    bench.repair.run(told(holding(step, "allocated")))
    assert bench.wanted == [Job(step, again=True)]


@pytest.mark.parametrize(("status", "action"), [("claimed", "attach"), ("releasing", "detach")])
def test_a_step_in_hand_is_gone_on_with(bench: Bench, make_step: MakeStep, status: str, action: str) -> None:
    step = make_step(action, VF)
    bench.repair.run(told(holding(step, status)))
    assert bench.wanted == [Job(step)]


def test_a_claim_with_a_status_that_the_agent_does_not_know_stays_as_it_is(
    bench: Bench, make_step: MakeStep
) -> None:
    bench.repair.run(told(holding(make_step("attach", VF), "suspended")))
    assert bench.wanted == []


def test_what_an_ended_claim_has_left_is_taken_back(bench: Bench, make_step: MakeStep) -> None:
    step = make_step("attach", PF)
    bench.attach(step)
    bench.repair.run(told(ended=[step]))
    wanted = step.model_copy(update={"step": 2, "action": "detach"})
    assert bench.wanted == [Job(wanted)]


def test_what_an_ended_claim_has_left_is_not_offered_before_it_is_back(
    bench: Bench, make_step: MakeStep
) -> None:
    step = make_step("attach", VF)
    bench.attach(step)
    bench.repair.run(told(ended=[step]))
    assert list(bench.repair.held_back()) == [PciAddress.parse(VF)]
    bench.driver.detach(step, step.devices[0])
    assert bench.repair.held_back() == {}


def test_what_left_the_host_for_an_ended_claim_and_reached_no_guest_is_taken_back(
    bench: Bench, make_step: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = make_step("attach", PF)
    bench.attach(step)
    attached = bench.driver.attachments()
    monkeypatch.setattr(bench.driver, "handed_over", lambda: attached)
    monkeypatch.setattr(bench.driver, "attachments", list)
    bench.repair.run(told(holding(step, "claimed")))
    assert bench.wanted.pop() == Job(step)
    bench.repair.run(told(ended=[step]))
    assert bench.wanted == [Job(step.model_copy(update={"step": 2, "action": "detach"}))]


def test_what_the_database_has_forgotten_is_not_taken_from_a_live_guest_but_held_back(
    bench: Bench, make_step: MakeStep
) -> None:
    """A backup from before the claim was restored: the agent did not restart, the guest runs on."""
    step = make_step("attach", VF)
    bench.attach(step)
    bench.repair.run(told(holding(step, "allocated")))
    assert bench.repair.held_back() == {}
    bench.repair.run(told())
    assert bench.wanted == []
    assert [str(held.address) for held in bench.driver.attachments()] == [VF]
    [reason] = bench.repair.held_back().values()
    assert f"claim {step.claim_id}, which is not known to hold it" in reason
    bench.repair.run(told(holding(step, "allocated")))  # a newer backup was found
    assert bench.repair.held_back() == {}


def test_what_an_old_database_takes_for_live_is_not_given_again(bench: Bench, make_step: MakeStep) -> None:
    """A backup from while the claim was live was restored; here it has ended since."""
    step = make_step("attach", VF)
    bench.attach(step)
    detach = step.model_copy(update={"step": 2, "action": "detach"})
    bench.ledger.begin(detach)
    bench.driver.detach(detach, detach.devices[0])
    bench.ledger.finish(detach, Ending("done"))
    bench.repair.run(told(holding(step, "allocated")))
    with pytest.raises(Superseded):
        bench.ledger.begin(bench.wanted[0].step, bench.wanted[0].again)


def test_a_claim_that_came_after_the_question_has_not_ended(bench: Bench, make_step: MakeStep) -> None:
    step = make_step("attach", VF)

    def nothing_yet(found: Collection[UUID]) -> Holdings:
        bench.attach(step)
        return Holdings(holdings=[], ended=list(found))

    bench.repair.run(nothing_yet)
    assert bench.wanted == []


def test_what_portclaim_did_not_attach_is_not_taken_but_held_back(
    bench: Bench, make_step: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = make_step("attach", VF)
    bench.attach(step)
    strangers = [replace(each, claim_id=None) for each in bench.driver.attachments()]
    monkeypatch.setattr(bench.driver, "attachments", lambda: strangers)
    bench.restart()
    bench.repair.run(told())
    assert bench.wanted == []
    assert bench.repair.held_back() == {
        PciAddress.parse(VF): f"in instance {step.instance_id}, not attached by Portclaim"
    }


class TestHeldBack:
    def test_what_was_attached_before_the_start_until_its_claim_is_confirmed(
        self, bench: Bench, make_step: MakeStep
    ) -> None:
        step = make_step("attach", VF)
        bench.attach(step)
        assert bench.repair.held_back() == {}
        bench.restart()
        assert list(bench.repair.held_back()) == [PciAddress.parse(VF)]
        bench.repair.run(told(holding(step, "allocated")))
        assert bench.repair.held_back() == {}

    def test_everything_where_the_conductor_knows_nothing_of_this_host(
        self, bench: Bench, make_step: MakeStep
    ) -> None:
        def unknown(_found: Collection[UUID]) -> Holdings:
            raise UnknownHost("who?")

        bench.attach(make_step("attach", VF))
        with pytest.raises(UnknownHost):
            bench.repair.run(unknown)
        assert bench.wanted == []
        assert list(bench.repair.held_back()) == [PciAddress.parse(VF)]

    def test_what_a_failed_step_has_left(self, bench: Bench, make_step: MakeStep) -> None:
        step = make_step("attach", VF, claim_id=uuid4())
        bench.attach(step)
        bench.ledger.finish(step, Ending("failed", "and not undone"))
        where = f"in instance {step.instance_id}, left there by claim {step.claim_id}"
        assert bench.repair.held_back() == {PciAddress.parse(VF): f"{where}, which is not known to hold it"}

    def test_but_not_what_a_claim_still_holds_because_its_detach_failed(
        self, bench: Bench, make_step: MakeStep
    ) -> None:
        step = make_step("attach", VF)
        bench.attach(step)
        detach = step.model_copy(update={"step": 2, "action": "detach"})
        bench.ledger.begin(detach)
        bench.ledger.finish(detach, Ending("failed", "the guest does not let go"))
        assert bench.repair.held_back() == {}
