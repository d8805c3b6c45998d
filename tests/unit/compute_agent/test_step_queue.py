"""The queue of steps: which steps wait for others, and which are dropped."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.step_queue import Job, StepQueue

PATIENCE = 10.0  # seconds after which a test has failed


def job(
    device: str = "0000:01:00.0", claim_id: UUID | None = None, step: int = 1, parent: str | None = None
) -> Job:
    return Job(
        Step(
            claim_id=claim_id or uuid4(),
            step=step,
            action="attach",
            instance_id=uuid4(),
            devices=[
                StepDevice(
                    address=device,
                    dev_type="type-VF" if parent else "type-PF",
                    vendor_id="8086",
                    product_id="1572",
                    parent_address=parent,
                )
            ],
        )
    )


class Workshop:
    """Finishes jobs when the test says so, and records the order in which they began and ended."""

    def __init__(self) -> None:
        self.begun: list[Job] = []
        self.done: list[Job] = []
        self._allowed: set[int] = set()
        self._changed = threading.Condition()

    def work(self, job: Job) -> None:
        with self._changed:
            self.begun.append(job)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: id(job) in self._allowed, PATIENCE)
            self.done.append(job)
            self._changed.notify_all()

    def let_finish(self, *jobs: Job) -> None:
        with self._changed:
            self._allowed |= {id(job) for job in jobs}
            self._changed.notify_all()

    def wait_until_begun(self, *jobs: Job) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: all(job in self.begun for job in jobs), PATIENCE)


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture
def queue(workshop: Workshop) -> Iterator[StepQueue]:
    queue = StepQueue(workshop.work, threads=4)
    yield queue
    queue.stop()


def test_steps_on_different_ports_run_in_parallel(queue: StepQueue, workshop: Workshop) -> None:
    one, other = job("0000:01:00.0"), job("0000:02:00.0")
    queue.put(one)
    queue.put(other)
    workshop.wait_until_begun(one, other)
    workshop.let_finish(one, other)


def test_steps_on_one_port_run_one_by_one_in_order(queue: StepQueue, workshop: Workshop) -> None:
    pf = "0000:01:00.0"
    jobs = [job("0000:01:10.0", parent=pf), job(pf), job("0000:01:10.2", parent=pf)]
    for each in jobs:
        queue.put(each)
    for number, each in enumerate(jobs, 1):
        workshop.wait_until_begun(each)
        assert workshop.begun == jobs[:number]
        workshop.let_finish(each)
    queue.stop()
    assert workshop.done == jobs


def test_a_step_does_not_overtake_another_that_waits_for_the_same_port(
    queue: StepQueue, workshop: Workshop
) -> None:
    first, both, second = job("0000:01:00.0"), job("0000:01:00.0"), job("0000:02:00.0")
    both.step.devices.extend(second.step.devices)
    for each in (first, both, second):
        queue.put(each)
    workshop.let_finish(first, both, second)
    workshop.wait_until_begun(second)
    assert workshop.begun == [first, both, second]


def test_a_repetition_of_a_running_step_is_dropped(queue: StepQueue, workshop: Workshop) -> None:
    running = job()
    waiting = job()
    for each in (running, running, waiting, waiting, running):
        queue.put(each)
    workshop.let_finish(running, waiting)
    workshop.wait_until_begun(waiting)
    queue.stop()
    assert workshop.done == [running, waiting]


def test_a_running_step_that_is_to_be_done_again_is_done_once_more(
    queue: StepQueue, workshop: Workshop
) -> None:
    running = job()
    again = replace(running, again=True)
    for each in (running, again, again):
        queue.put(each)
    workshop.wait_until_begun(running)
    workshop.let_finish(running, again)
    workshop.wait_until_begun(again)
    queue.stop()
    assert workshop.done == [running, again]


def test_a_step_is_not_done_again_while_a_later_one_of_its_claim_runs(
    queue: StepQueue, workshop: Workshop
) -> None:
    claim_id = uuid4()
    detach = job(claim_id=claim_id, step=2)
    queue.put(detach)
    queue.put(replace(job(claim_id=claim_id), again=True))
    workshop.let_finish(detach)
    workshop.wait_until_begun(detach)
    queue.stop()
    assert workshop.done == [detach]


def test_a_later_step_of_a_claim_replaces_its_waiting_step(queue: StepQueue, workshop: Workshop) -> None:
    claim_id = uuid4()
    running, attach, detach = job(), job(claim_id=claim_id), job(claim_id=claim_id, step=2)
    for each in (running, attach, detach, attach):
        queue.put(each)
    workshop.let_finish(running, detach)
    workshop.wait_until_begun(detach)
    queue.stop()
    assert workshop.done == [running, detach]


def test_a_later_step_waits_for_the_running_one(queue: StepQueue, workshop: Workshop) -> None:
    claim_id = uuid4()
    attach, detach = job("0000:01:00.0", claim_id), job("0000:02:00.0", claim_id, step=2)
    queue.put(attach)
    queue.put(detach)
    workshop.wait_until_begun(attach)
    assert workshop.begun == [attach]
    workshop.let_finish(attach, detach)
    workshop.wait_until_begun(detach)


def test_a_step_can_be_queued_again_after_it_was_done(queue: StepQueue, workshop: Workshop) -> None:
    once = job()
    workshop.let_finish(once)
    done = 0
    while done < 3:
        queue.put(once)  # dropped while the earlier one is running
        done = len(workshop.done)


def test_an_exception_in_one_step_does_not_stop_the_next() -> None:
    done = threading.Event()

    def work(job: Job) -> None:
        if job.step.step == 1:
            raise ZeroDivisionError
        done.set()

    queue = StepQueue(work, threads=1)
    queue.put(job(step=1))
    queue.put(job(step=2))
    assert done.wait(PATIENCE)
    queue.stop()


def test_stopping_finishes_running_steps_and_drops_waiting_ones(queue: StepQueue, workshop: Workshop) -> None:
    running, waiting = job(), job()
    queue.put(running)
    queue.put(waiting)
    workshop.wait_until_begun(running)
    stopping = threading.Thread(target=queue.stop)
    stopping.start()
    workshop.let_finish(running, waiting)
    stopping.join(PATIENCE)
    queue.put(job())
    assert running in workshop.done
    assert len(workshop.begun) == len(workshop.done)
