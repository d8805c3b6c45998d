"""A queue of steps.

Steps of one claim, or of one PF/VF tree, run one after another; others run at the same time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from portclaim.common.rpc.agent_messages import Step

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A step to do.

    ``again``: do it even if it was done before, because its instance may have come, or has lost a device.
    ``was_attached``: the instance had all devices of the claim. It keeps those that it has if this fails.
    """

    step: Step
    again: bool = False
    was_attached: bool = False

    @property
    def keys(self) -> frozenset[str]:
        """What the step locks: its claim, and the ports whose trees it changes."""
        ports = {device.parent_address or device.address for device in self.step.devices}
        return frozenset(ports | {str(self.step.claim_id)})


class StepQueue:
    """Takes steps without blocking their sender, and calls ``work`` for each.

    A step that is already running or waiting is dropped; one that is to be done again waits for the one that
    runs. A waiting step is dropped when a later step of its claim arrives. The conductor sends unanswered
    steps again.
    """

    def __init__(self, work: Callable[[Job], None], threads: int) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="step")
        self._lock = threading.Lock()
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._stopped = False

    def put(self, job: Job) -> None:
        """Do the step as soon as no other step locks its claim or trees."""
        claim_id, number = job.step.claim_id, job.step.step
        with self._lock:
            waiting = [member.step.step for member in self._waiting if member.step.claim_id == claim_id]
            running = [member.step.step for member in self._running if member.step.claim_id == claim_id]
            if job.again:  # what it looks for may have come after the running one has looked
                running = [step for step in running if step > number]
            if self._stopped or any(step >= number for step in waiting + running):
                return
            self._waiting = [member for member in self._waiting if member.step.claim_id != claim_id]
            self._waiting.append(job)
            self._start_what_can()

    def stop(self) -> None:
        """Finish the running steps and return. Waiting steps are dropped."""
        with self._lock:
            self._stopped = True
            self._waiting.clear()
        self._pool.shutdown()

    def _start_what_can(self) -> None:
        taken = {key for job in self._running for key in job.keys}
        for job in list(self._waiting):
            if taken.isdisjoint(job.keys):
                self._waiting.remove(job)
                self._running.append(job)
                self._pool.submit(self._run, job)
            taken |= job.keys  # also of a waiting step, so that steps of one tree keep their order

    def _run(self, job: Job) -> None:
        try:
            self._work(job)
        except Exception:
            LOG.exception("step %s of claim %s", job.step.step, job.step.claim_id)
        finally:
            with self._lock:
                self._running.remove(job)
                self._start_what_can()
