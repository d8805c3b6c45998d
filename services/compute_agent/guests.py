"""Steps whose instance does not have its devices yet: they are done again when the instance comes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import UUID

from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.step_queue import Job


class GuestWatch:
    """Remembers such steps, one for each claim. Threads may share one.

    A step is remembered before its driver looks for the instance. So an instance that comes while the driver
    looks is not missed.
    """

    def __init__(self, put: Callable[[Job], None]) -> None:
        self._put = put
        self._lock = threading.Lock()
        self._steps: dict[UUID, Step] = {}

    def expect(self, step: Step) -> None:
        """From now on, do the step again when something changes at its instance."""
        with self._lock:
            self._steps[step.claim_id] = step

    def expects(self, step: Step) -> bool:
        """Would this step be done again when something changes at its instance?"""
        with self._lock:
            expected = self._steps.get(step.claim_id)
        return expected is not None and expected.step == step.step

    def forget(self, claim_id: UUID) -> None:
        """The instance has the devices, or will not get them."""
        with self._lock:
            self._steps.pop(claim_id, None)

    def changed(self, instance_id: UUID | None) -> None:
        """Something has changed at this instance; None: perhaps at any instance."""
        with self._lock:
            steps = [step for step in self._steps.values() if instance_id in {None, step.instance_id}]
        for step in steps:
            self._put(Job(step, again=True))
