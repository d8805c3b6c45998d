"""Steps that wait for their turn: one at a time per claim and per PF/VF tree, else as they come."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from portclaim.common.rpc.messages import Step

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A step to be done; ``again`` even if it was done once, because its effect was lost."""

    step: Step
    again: bool = False

    @property
    def keys(self) -> frozenset[str]:
        """What nobody else may work on meanwhile: the claim, and the ports whose trees it touches."""
        ports = {device.parent_address or device.address for device in self.step.devices}
        return frozenset(ports | {str(self.step.claim_id)})


class StepQueue:
    """Takes steps without ever holding their sender up, and has ``work`` called for each.

    A repetition of a step in hand is dropped, and so is a waiting step when a later one of its claim
    arrives: whoever wanted them sends again what is not answered.
    """

    def __init__(self, work: Callable[[Job], None], threads: int) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="step")
        self._lock = threading.Lock()
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._stopped = False

    def put(self, job: Job) -> None:
        """Have the step done as soon as its claim and its trees are free."""
        claim_id, number = job.step.claim_id, job.step.step
        with self._lock:
            mates = [mate for mate in self._waiting + self._running if mate.step.claim_id == claim_id]
            if self._stopped or any(mate.step.step >= number for mate in mates):
                return
            self._waiting = [mate for mate in self._waiting if mate.step.claim_id != claim_id]
            self._waiting.append(job)
            self._start_what_can()

    def stop(self) -> None:
        """Finish the steps in hand and return; those that wait are forgotten."""
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
            taken |= job.keys  # also of one that waits: nobody overtakes on the same tree

    def _run(self, job: Job) -> None:
        try:
            self._work(job)
        except Exception:
            LOG.exception("step %s of claim %s", job.step.step, job.step.claim_id)
        finally:
            with self._lock:
                self._running.remove(job)
                self._start_what_can()
