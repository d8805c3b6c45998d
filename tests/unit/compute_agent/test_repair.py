"""Repair: the agent compares the devices that claims should hold with those that guests have."""

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
    """A repair of one host. ``wanted``: the steps that the repair asks for; nothing executes them."""

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
            self.driver.prepare(step, device)
            self.driver.attach(step, device)
        self.ledger.finish(step, Ending("done"))


@pytest.fixture
def bench(driver: SimulatedDriver, scanner: Scanner, tmp_path: Path) -> Bench:
    return Bench(driver, scanner, Ledger(tmp_path / "steps.sqlite"))


def told(*live: Holding, ended: Collection[Step] = ()) -> Callable[[Collection[UUID]], Holdings]:
    """A conductor that knows these live claims, and the claims of ``ended`` as ended."""

    def ask(found: Collection[UUID]) -> Holdings:
        past = {step.claim_id for step in ended}
        return Holdings(holdings=list(live), ended=[claim_id for claim_id in found if claim_id in past])

    return ask


def holding(step: Step, status: str, number: int | None = None, attach: str = "auto") -> Holding:
    return Holding(
        claim_id=step.claim_id,
        instance_id=step.instance_id,
        status=status,
        step=number or step.step,
        devices=step.devices,
        attach=attach,
    )


def test_an_attached_claim_needs_no_step(bench: Bench, make_step: MakeStep) -> None:
    step = make_step("attach", VF)
    bench.attach(step)
    bench.repair.run(told(holding(step, "allocated")))
    assert bench.wanted == []


def test_a_device_that_a_guest_has_lost_is_attached_again(bench: Bench, make_step: MakeStep) -> None:
    step = make_step("attach", VF, PF)
    bench.attach(step)
    bench.driver.detach(step, step.devices[0])
    bench.repair.run(told(holding(step, "allocated")))
    assert bench.wanted == [Job(step, again=True, was_attached=True)]


@pytest.mark.parametrize(
    ("status", "attach", "action"),
    [
        ("claimed", "auto", "attach"),
        ("claimed", "on-call", "prepare"),
        ("releasing", "auto", "detach"),
        ("releasing", "on-call", "detach"),
    ],
)
def test_an_unfinished_step_is_continued(
    bench: Bench, make_step: MakeStep, status: str, attach: str, action: str
) -> None:
    step = make_step(action, VF)
    bench.repair.run(told(holding(step, status, attach=attach)))
    assert bench.wanted == [Job(step)]


@pytest.mark.parametrize(("attach", "action"), [("auto", "attach"), ("on-call", "prepare")])
def test_a_prepared_claim_is_looked_at_again_because_its_instance_may_have_come(
    bench: Bench, make_step: MakeStep, attach: str, action: str
) -> None:
    step = make_step(action, VF)
    bench.driver.prepare(step, step.devices[0])
    bench.repair.run(told(holding(step, "prepared", attach=attach)))
    assert bench.wanted == [Job(step, again=True)]
    assert bench.repair.held_back() == {}


def test_a_claim_with_an_unknown_status_is_left_alone(bench: Bench, make_step: MakeStep) -> None:
    bench.repair.run(told(holding(make_step("attach", VF), "suspended")))
    assert bench.wanted == []


def test_a_device_that_an_ended_claim_left_in_a_guest_is_detached(bench: Bench, make_step: MakeStep) -> None:
    step = make_step("attach", PF)
    bench.attach(step)
    bench.repair.run(told(ended=[step]))
    wanted = step.model_copy(update={"step": 2, "action": "detach"})
    assert bench.wanted == [Job(wanted)]


def test_a_device_that_an_ended_claim_left_in_a_guest_is_held_back_until_it_is_detached(
    bench: Bench, make_step: MakeStep
) -> None:
    step = make_step("attach", VF)
    bench.attach(step)
    bench.repair.run(told(ended=[step]))
    assert list(bench.repair.held_back()) == [PciAddress.parse(VF)]
    bench.driver.detach(step, step.devices[0])
    assert bench.repair.held_back() == {}


def test_a_device_handed_over_for_an_ended_claim_but_not_attached_is_detached(
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


def test_a_device_of_a_claim_missing_in_the_database_stays_in_its_guest_and_is_held_back(
    bench: Bench, make_step: MakeStep
) -> None:
    """The database was restored from a backup made before the claim. The agent and the guest run on."""
    step = make_step("attach", VF)
    bench.attach(step)
    bench.repair.run(told(holding(step, "allocated")))
    assert bench.repair.held_back() == {}
    bench.repair.run(told())
    assert bench.wanted == []
    assert [str(held.address) for held in bench.driver.attachments()] == [VF]
    [reason] = bench.repair.held_back().values()
    assert f"claim {step.claim_id}, which is not known to hold it" in reason
    bench.repair.run(told(holding(step, "allocated")))  # a newer backup was restored
    assert bench.repair.held_back() == {}


def test_a_claim_that_ended_on_the_host_is_not_attached_again_for_an_old_database(
    bench: Bench, make_step: MakeStep
) -> None:
    """The database was restored from a backup made while the claim was live. On the host it has ended."""
    step = make_step("attach", VF)
    bench.attach(step)
    detach = step.model_copy(update={"step": 2, "action": "detach"})
    bench.ledger.begin(detach)
    bench.driver.detach(detach, detach.devices[0])
    bench.ledger.finish(detach, Ending("done"))
    bench.repair.run(told(holding(step, "allocated")))
    with pytest.raises(Superseded):
        bench.ledger.begin(bench.wanted[0].step, bench.wanted[0].again)


def test_a_claim_attached_while_the_conductor_answers_is_not_detached(
    bench: Bench, make_step: MakeStep
) -> None:
    step = make_step("attach", VF)

    def nothing_yet(found: Collection[UUID]) -> Holdings:
        bench.attach(step)
        return Holdings(holdings=[], ended=list(found))

    bench.repair.run(nothing_yet)
    assert bench.wanted == []


def test_a_device_that_portclaim_did_not_attach_stays_in_its_guest_and_is_held_back(
    bench: Bench, make_step: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = make_step("attach", VF)
    bench.attach(step)
    strangers = [replace(each, claim_id=None) for each in bench.driver.attachments()]
    monkeypatch.setattr(bench.driver, "attachments", lambda: strangers)
    monkeypatch.setattr(bench.driver, "handed_over", list)
    bench.restart()
    bench.repair.run(told())
    assert bench.wanted == []
    assert bench.repair.held_back() == {
        PciAddress.parse(VF): f"in instance {step.instance_id}, not attached by Portclaim"
    }


class TestHeldBack:
    def test_a_device_attached_before_the_start_is_held_back_until_its_claim_is_confirmed(
        self, bench: Bench, make_step: MakeStep
    ) -> None:
        step = make_step("attach", VF)
        bench.attach(step)
        assert bench.repair.held_back() == {}
        bench.restart()
        assert list(bench.repair.held_back()) == [PciAddress.parse(VF)]
        bench.repair.run(told(holding(step, "allocated")))
        assert bench.repair.held_back() == {}

    def test_all_attached_devices_are_held_back_if_the_conductor_does_not_know_the_host(
        self, bench: Bench, make_step: MakeStep
    ) -> None:
        def unknown(_found: Collection[UUID]) -> Holdings:
            raise UnknownHost("who?")

        bench.attach(make_step("attach", VF))
        with pytest.raises(UnknownHost):
            bench.repair.run(unknown)
        assert bench.wanted == []
        assert list(bench.repair.held_back()) == [PciAddress.parse(VF)]

    def test_a_device_left_in_a_guest_by_a_failed_attach_is_held_back(
        self, bench: Bench, make_step: MakeStep
    ) -> None:
        step = make_step("attach", VF, claim_id=uuid4())
        bench.attach(step)
        bench.ledger.finish(step, Ending("failed", "and not undone"))
        where = f"in instance {step.instance_id}, left there by claim {step.claim_id}"
        assert bench.repair.held_back() == {PciAddress.parse(VF): f"{where}, which is not known to hold it"}

    def test_a_device_whose_detach_failed_is_not_held_back_because_its_claim_still_holds_it(
        self, bench: Bench, make_step: MakeStep
    ) -> None:
        step = make_step("attach", VF)
        bench.attach(step)
        detach = step.model_copy(update={"step": 2, "action": "detach"})
        bench.ledger.begin(detach)
        bench.ledger.finish(detach, Ending("failed", "the guest does not let go"))
        assert bench.repair.held_back() == {}
