"""A step is done completely or not at all, and its result is recorded."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import InstanceNotFound
from portclaim.services.compute_agent.drivers.simulated import FAULTS, GROUP, OPTIONS, SimulatedDriver
from portclaim.services.compute_agent.drivers.simulated_guests import SimulatedGuests
from portclaim.services.compute_agent.guests import GuestWatch
from portclaim.services.compute_agent.ledger import Ending, Ledger
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.step_queue import Job
from portclaim.services.compute_agent.steps import StepRunner

MakeStep = Callable[..., Step]
VFS = ["0000:01:10.0", "0000:01:10.2", "0000:02:10.0"]


class Watch(GuestWatch):
    """``again``: the steps that are to be done again because something has changed at their instance."""

    def __init__(self) -> None:
        self.again: list[Job] = []
        super().__init__(self.again.append)


@pytest.fixture
def guests() -> Watch:
    return Watch()


@pytest.fixture
def runner(driver: SimulatedDriver, scanner: Scanner, tmp_path: Path, guests: Watch) -> StepRunner:
    return StepRunner(driver, scanner, Ledger(tmp_path / "steps.sqlite"), guests)


@pytest.fixture
def break_down(state_path: Path) -> Callable[..., None]:
    """Makes the hypervisor fail in the given way; without arguments it works again."""

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


def test_a_repeated_attach_that_failed_is_not_tried_again(
    runner: StepRunner, driver: SimulatedDriver, make_step: MakeStep, break_down: Callable[..., None]
) -> None:
    step = make_step("attach", VFS[0])
    break_down(error="no such instance")
    runner.run(Job(step))
    break_down()
    assert runner.run(Job(step)) == Ending("failed", "no such instance")
    assert held(driver) == set()


def test_a_detach_detaches_what_it_can_and_the_rest_when_it_is_repeated(
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


def test_an_attach_that_arrives_after_the_detach_is_dropped(
    runner: StepRunner, driver: SimulatedDriver, make_step: MakeStep
) -> None:
    step = make_step("attach", VFS[0])
    assert runner.run(Job(detach_of(step))) == Ending("done")
    assert runner.run(Job(step)) is None
    assert held(driver) == set()


def test_a_missing_device_is_not_attached_and_an_error_is_logged(
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
def test_a_device_that_was_replaced_by_another_is_not_attached(
    runner: StepRunner, make_step: MakeStep, change: dict[str, str], reason: str
) -> None:
    step = make_step("attach", VFS[0])
    other = step.model_copy(update={"devices": [step.devices[0].model_copy(update=change)]})
    assert runner.run(Job(other)) == Ending("failed", f"{VFS[0]} {reason}")


def test_an_exception_in_the_driver_fails_the_step_but_not_the_agent(
    runner: StepRunner, driver: SimulatedDriver, make_step: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(driver, "attach", fault)
    ending = runner.run(Job(make_step("attach", VFS[0])))
    assert ending == Ending("failed", "an error in the agent, see its log: ZeroDivisionError('oh')")


class TestAgain:
    """Devices that an instance has lost are attached again."""

    @pytest.fixture
    def step(self, runner: StepRunner, driver: SimulatedDriver, make_step: MakeStep) -> Step:
        """An attach that was done. The instance has lost its first device since then."""
        step = make_step("attach", *VFS)
        runner.run(Job(step))
        driver.detach(step, step.devices[0])
        return step

    def test_the_instance_has_all_devices_again(
        self, runner: StepRunner, driver: SimulatedDriver, step: Step
    ) -> None:
        assert runner.run(Job(step, again=True, was_attached=True)) == Ending("done")
        assert held(driver) == set(VFS)

    def test_if_it_fails_the_other_devices_stay_attached_and_the_next_repair_retries(
        self, runner: StepRunner, driver: SimulatedDriver, step: Step, break_down: Callable[..., None]
    ) -> None:
        break_down(address=VFS[0], action="attach", error="the hypervisor is busy")
        assert runner.run(Job(step, again=True, was_attached=True)) is None
        assert held(driver) == set(VFS[1:])
        break_down()
        assert runner.run(Job(step, again=True, was_attached=True)) == Ending("done")
        assert held(driver) == set(VFS)

    @pytest.fixture
    def gone(self, step: Step, driver: SimulatedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        def attach(_step: Step, _device: object) -> None:
            raise InstanceNotFound(f"instance {step.instance_id} is not on this host")

        monkeypatch.setattr(driver, "attach", attach)

    @pytest.mark.usefixtures("gone")
    def test_a_missing_instance_does_not_fail_the_step_at_once(
        self, runner: StepRunner, driver: SimulatedDriver, step: Step
    ) -> None:
        assert [runner.run(Job(step, again=True, was_attached=True)) for _ in range(2)] == [None, None]
        assert held(driver) == set(VFS[1:])

    @pytest.mark.usefixtures("gone")
    def test_an_instance_missing_for_long_fails_the_step_and_its_devices_are_detached(
        self,
        runner: StepRunner,
        driver: SimulatedDriver,
        step: Step,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        runner.run(Job(step, again=True, was_attached=True))
        monkeypatch.setattr("portclaim.services.compute_agent.steps.GONE_AFTER", 0.0)
        reason = f"instance {step.instance_id} is not on this host"
        assert runner.run(Job(step, again=True, was_attached=True)) == Ending("failed", reason)
        assert held(driver) == set()


class TestBeforeTheInstance:
    """The instance is not on this host yet."""

    @pytest.fixture
    def driver(self, conf: cfg.ConfigOpts, state_path: Path) -> Iterator[SimulatedDriver]:
        conf.register_opts(OPTIONS, GROUP)
        conf.set_override("guests", "defined", "simulated")
        driver = SimulatedDriver(conf, state_path)
        driver.start()
        yield driver
        driver.stop()
        conf.clear_override("guests", "simulated")

    @pytest.fixture
    def instances(self, driver: SimulatedDriver) -> SimulatedGuests:
        return SimulatedGuests(driver.state_path)

    @pytest.fixture
    def step(self, runner: StepRunner, make_step: MakeStep) -> Step:
        """An attach of devices that are prepared."""
        step = make_step("attach", *VFS)
        assert runner.run(Job(step)) == Ending("prepared")
        return step

    def test_the_devices_leave_the_host(self, driver: SimulatedDriver, step: Step) -> None:
        assert {str(each.address) for each in driver.handed_over()} == set(VFS)
        assert {each.claim_id for each in driver.handed_over()} == {step.claim_id}
        assert held(driver) == set()

    def test_the_step_is_answered_again_when_it_is_repeated(self, runner: StepRunner, step: Step) -> None:
        assert runner.run(Job(step)) == Ending("prepared")

    def test_while_the_instance_does_not_come_nothing_new_is_answered(
        self, runner: StepRunner, step: Step
    ) -> None:
        assert runner.run(Job(step, again=True)) is None

    def test_the_instance_gets_them_when_it_comes(
        self,
        runner: StepRunner,
        driver: SimulatedDriver,
        instances: SimulatedGuests,
        guests: Watch,
        step: Step,
    ) -> None:
        instances.define(step.instance_id)
        guests.changed(step.instance_id)
        assert [runner.run(job) for job in guests.again] == [Ending("done")]
        assert held(driver) == set(VFS)
        guests.changed(step.instance_id)
        assert len(guests.again) == 1  # nothing is expected any more

    def test_the_instance_may_come_after_a_restart_of_the_agent(
        self,
        driver: SimulatedDriver,
        scanner: Scanner,
        tmp_path: Path,
        instances: SimulatedGuests,
        step: Step,
    ) -> None:
        """The agent was killed before it could answer, so the step comes again."""
        guests = Watch()
        runner = StepRunner(driver, scanner, Ledger(tmp_path / "steps.sqlite"), guests)
        assert runner.run(Job(step)) == Ending("prepared")
        instances.define(step.instance_id)
        guests.changed(step.instance_id)
        assert [runner.run(job) for job in guests.again] == [Ending("done")]
        assert held(driver) == set(VFS)

    def test_the_instance_may_come_while_the_agent_restarts(
        self,
        driver: SimulatedDriver,
        scanner: Scanner,
        tmp_path: Path,
        instances: SimulatedGuests,
        step: Step,
    ) -> None:
        instances.define(step.instance_id)
        runner = StepRunner(driver, scanner, Ledger(tmp_path / "steps.sqlite"), Watch())
        assert runner.run(Job(step)) == Ending("done")
        assert held(driver) == set(VFS)

    def test_another_instance_does_not_matter(self, guests: Watch, step: Step) -> None:
        guests.changed(step.claim_id)
        assert guests.again == []

    def test_a_failed_attach_gives_them_back(
        self,
        runner: StepRunner,
        driver: SimulatedDriver,
        instances: SimulatedGuests,
        step: Step,
        break_down: Callable[..., None],
    ) -> None:
        instances.define(step.instance_id)
        break_down(action="attach", address=VFS[1], error="the guest has no slot left")
        assert runner.run(Job(step, again=True)) == Ending("failed", "the guest has no slot left")
        assert driver.handed_over() == []

    def test_a_detach_takes_them_back(
        self, runner: StepRunner, driver: SimulatedDriver, guests: Watch, step: Step
    ) -> None:
        assert runner.run(Job(detach_of(step))) == Ending("done")
        assert driver.handed_over() == []
        guests.changed(step.instance_id)
        assert guests.again == []

    def test_a_device_that_cannot_be_prepared_fails_the_step(
        self,
        runner: StepRunner,
        driver: SimulatedDriver,
        make_step: MakeStep,
        break_down: Callable[..., None],
    ) -> None:
        break_down(action="prepare", address=VFS[1], error="the host uses it")
        assert runner.run(Job(make_step("attach", *VFS))) == Ending("failed", "the host uses it")
        assert driver.handed_over() == []

    class TestOnCall:
        def test_the_devices_are_only_prepared_although_the_instance_is_here(
            self, runner: StepRunner, driver: SimulatedDriver, instances: SimulatedGuests, make_step: MakeStep
        ) -> None:
            step = make_step("prepare", *VFS)
            instances.define(step.instance_id)
            assert runner.run(Job(step)) == Ending("prepared")
            assert held(driver) == set()
            later = step.model_copy(update={"step": 2, "action": "attach"})
            assert runner.run(Job(later)) == Ending("done")
            assert held(driver) == set(VFS)

        def test_the_caller_may_put_them_into_the_definition(
            self,
            runner: StepRunner,
            instances: SimulatedGuests,
            guests: Watch,
            make_step: MakeStep,
        ) -> None:
            step = make_step("prepare", *VFS)
            assert runner.run(Job(step)) == Ending("prepared")
            instances.define(step.instance_id, VFS)
            guests.changed(step.instance_id)
            assert [runner.run(job) for job in guests.again] == [Ending("done")]


class TestAfterALiveMigrationThatWasReverted:
    """The devices were unplugged for it, and the instance gets them back."""

    @pytest.fixture
    def step(self, runner: StepRunner, make_step: MakeStep) -> Step:
        """An attach that follows an unplug."""
        step = make_step("attach", *VFS)
        runner.run(Job(step))
        unplug = step.model_copy(update={"step": 2, "action": "unplug"})
        assert runner.run(Job(unplug)) == Ending("prepared")
        return step.model_copy(update={"step": 3})

    def test_the_instance_has_them_again(
        self, runner: StepRunner, driver: SimulatedDriver, step: Step
    ) -> None:
        assert held(driver) == set()
        assert runner.run(Job(step)) == Ending("done")
        assert held(driver) == set(VFS)

    def test_a_failure_loses_none_of_them_however_often_and_across_restarts(
        self,
        runner: StepRunner,
        driver: SimulatedDriver,
        tmp_path: Path,
        step: Step,
        break_down: Callable[..., None],
    ) -> None:
        break_down(action="attach", address=VFS[1], error="the hypervisor is busy")
        assert [runner.run(Job(step)), runner.run(Job(step, again=True))] == [None, None]
        restarted = StepRunner(driver, runner._scanner, Ledger(tmp_path / "steps.sqlite"), Watch())
        assert restarted.run(Job(step, again=True)) is None
        assert {str(each.address) for each in driver.handed_over()} == set(VFS)
        break_down()
        assert restarted.run(Job(step, again=True)) == Ending("done")
        assert held(driver) == set(VFS)
