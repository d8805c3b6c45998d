"""A step is done wholly or not at all, and how it ended is known."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import InstanceNotFound
from portclaim.services.compute_agent.drivers.simulated import FAULTS, SimulatedDriver
from portclaim.services.compute_agent.ledger import Ending, Ledger
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.step_queue import Job
from portclaim.services.compute_agent.steps import StepRunner

MakeStep = Callable[..., Step]
VFS = ["0000:01:10.0", "0000:01:10.2", "0000:02:10.0"]


@pytest.fixture
def runner(driver: SimulatedDriver, scanner: Scanner, tmp_path: Path) -> StepRunner:
    return StepRunner(driver, scanner, Ledger(tmp_path / "steps.sqlite"))


@pytest.fixture
def break_down(state_path: Path) -> Callable[..., None]:
    """Makes the hypervisor fail as told; with nothing told, it works again."""

    def break_down(**fault: str) -> None:
        (state_path / FAULTS).write_text(json.dumps([fault] if fault else []))

    return break_down


def held(driver: SimulatedDriver) -> set[str]:
    return {str(each.address) for each in driver.attachments()}


def detach_of(step: Step) -> Step:
    return step.model_copy(update={"step": step.step + 1, "action": "detach"})


def test_all_devices_of_a_step_are_attached_and_detached(
    runner: StepRunner, driver: SimulatedDriver, make_step: MakeStep
) -> None:
    step = make_step("attach", *VFS)
    assert runner.run(Job(step)) == Ending("done")
    assert held(driver) == set(VFS)
    assert runner.run(Job(detach_of(step))) == Ending("done")
    assert held(driver) == set()


def test_an_attach_that_fails_half_way_leaves_nothing_attached(
    runner: StepRunner, driver: SimulatedDriver, make_step: MakeStep, break_down: Callable[..., None]
) -> None:
    break_down(address=VFS[2], action="attach", error="the guest has no slot left")
    assert runner.run(Job(make_step("attach", *VFS))) == Ending("failed", "the guest has no slot left")
    assert held(driver) == set()


def test_a_failed_attach_stays_failed_when_it_comes_again(
    runner: StepRunner, driver: SimulatedDriver, make_step: MakeStep, break_down: Callable[..., None]
) -> None:
    step = make_step("attach", VFS[0])
    break_down(error="no such instance")
    runner.run(Job(step))
    break_down()
    assert runner.run(Job(step)) == Ending("failed", "no such instance")
    assert held(driver) == set()


def test_a_detach_takes_what_it_can_and_the_rest_when_it_comes_again(
    runner: StepRunner, driver: SimulatedDriver, make_step: MakeStep, break_down: Callable[..., None]
) -> None:
    step = make_step("attach", *VFS)
    runner.run(Job(step))
    break_down(address=VFS[0], error="the guest does not let go")
    assert runner.run(Job(detach_of(step))) == Ending("failed", "the guest does not let go")
    assert held(driver) == {VFS[0]}
    break_down()
    assert runner.run(Job(detach_of(step))) == Ending("done")
    assert held(driver) == set()


def test_an_attach_that_comes_after_its_detach_is_dropped(
    runner: StepRunner, driver: SimulatedDriver, make_step: MakeStep
) -> None:
    step = make_step("attach", VFS[0])
    assert runner.run(Job(detach_of(step))) == Ending("done")
    assert runner.run(Job(step)) is None
    assert held(driver) == set()


def test_a_device_that_is_not_there_is_not_attached_and_that_is_said_loudly(
    runner: StepRunner, host: SimulatedTree, make_step: MakeStep, caplog: pytest.LogCaptureFixture
) -> None:
    step = make_step("attach", VFS[0])
    host.unplug(PciAddress.parse(VFS[0]))
    assert runner.run(Job(step)) == Ending("failed", f"{VFS[0]} is not on this host")
    [said] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said.endswith(f"step 1, attach, failed: {VFS[0]} is not on this host")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"product_id": "10ed"}, "is now type-VF 8086 154c, but was claimed as type-VF 8086 10ed"),
        ({"dev_type": "type-PCI"}, "is now type-VF 8086 154c, but was claimed as type-PCI 8086 154c"),
    ],
)
def test_a_device_that_is_another_now_is_not_attached(
    runner: StepRunner, make_step: MakeStep, change: dict[str, str], reason: str
) -> None:
    step = make_step("attach", VFS[0])
    other = step.model_copy(update={"devices": [step.devices[0].model_copy(update=change)]})
    assert runner.run(Job(other)) == Ending("failed", f"{VFS[0]} {reason}")


def test_a_fault_of_the_driver_fails_the_step_and_not_the_agent(
    runner: StepRunner, driver: SimulatedDriver, make_step: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(driver, "attach", fault)
    ending = runner.run(Job(make_step("attach", VFS[0])))
    assert ending == Ending("failed", "an error in the agent, see its log: ZeroDivisionError('oh')")


class TestAgain:
    """What an instance has lost is given to it again."""

    @pytest.fixture
    def step(self, runner: StepRunner, driver: SimulatedDriver, make_step: MakeStep) -> Step:
        """An attach that was done, and the instance has lost its first device since."""
        step = make_step("attach", *VFS)
        runner.run(Job(step))
        driver.detach(step, step.devices[0])
        return step

    def test_it_has_them_all(self, runner: StepRunner, driver: SimulatedDriver, step: Step) -> None:
        assert runner.run(Job(step, again=True)) == Ending("done")
        assert held(driver) == set(VFS)

    def test_what_it_still_has_it_keeps_if_that_fails_and_the_next_repair_tries_again(
        self, runner: StepRunner, driver: SimulatedDriver, step: Step, break_down: Callable[..., None]
    ) -> None:
        break_down(address=VFS[0], action="attach", error="the hypervisor is busy")
        assert runner.run(Job(step, again=True)) is None
        assert held(driver) == set(VFS[1:])
        break_down()
        assert runner.run(Job(step, again=True)) == Ending("done")
        assert held(driver) == set(VFS)

    @pytest.fixture
    def gone(self, step: Step, driver: SimulatedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        def attach(_step: Step, _device: object) -> None:
            raise InstanceNotFound(f"instance {step.instance_id} is not on this host")

        monkeypatch.setattr(driver, "attach", attach)

    @pytest.mark.usefixtures("gone")
    def test_an_instance_that_is_gone_for_a_moment_is_waited_for(
        self, runner: StepRunner, driver: SimulatedDriver, step: Step
    ) -> None:
        assert [runner.run(Job(step, again=True)) for _ in range(2)] == [None, None]
        assert held(driver) == set(VFS[1:])

    @pytest.mark.usefixtures("gone")
    def test_one_that_stays_away_is_told_of_and_what_it_had_comes_back(
        self,
        runner: StepRunner,
        driver: SimulatedDriver,
        step: Step,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        runner.run(Job(step, again=True))
        monkeypatch.setattr("portclaim.services.compute_agent.steps.GONE_AFTER", 0.0)
        reason = f"instance {step.instance_id} is not on this host"
        assert runner.run(Job(step, again=True)) == Ending("failed", reason)
        assert held(driver) == set()
