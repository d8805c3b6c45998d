"""Reports to the conductor, from one thread: first the inventory, then the answers to steps."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

import tenacity

from portclaim.common.errors import (
    ClaimNotFound,
    HostOwnedByAnotherAgent,
    InvalidRequest,
    PortclaimError,
    ServiceFailed,
    ServiceUnavailable,
    StaleStep,
    UnknownHost,
)
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.conductor_link import ConductorLink
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.inventory import Inventory
from portclaim.services.compute_agent.ledger import Ending
from portclaim.services.compute_agent.repair import Repair
from portclaim.services.compute_agent.scanner import ScanError

LOG = logging.getLogger(__name__)

REPAIR_INTERVAL = 60.0
LAST_REPORT = 5.0  # seconds

_NOT_WANTED = (StaleStep, ClaimNotFound, InvalidRequest, HostOwnedByAnotherAgent)


class _Answer(NamedTuple):
    step: Step
    ending: Ending
    is_awaited: bool


class Reporter(threading.Thread):
    """Reports every ``interval`` seconds, and at once when woken or given an answer.

    An answer is sent after an inventory that was taken after the step's end. So the conductor knows the VFs
    of a port before it hears that the port is restored. While the conductor does not answer, rounds are
    repeated and no answer is lost.

    The first round begins with a repair. A repair also runs every ``REPAIR_INTERVAL`` seconds, and when the
    conductor asks for a full inventory or refuses an attach that did not fail. ``take_inventory`` scans the
    host. ``own`` is called with True when the conductor accepts this agent as the host's, and with False when
    it accepts another agent.
    """

    def __init__(
        self,
        conductor: ConductorLink,
        repair: Repair,
        take_inventory: Callable[[], Inventory],
        own: Callable[[bool], None],
        interval: float,
    ) -> None:
        super().__init__(name=f"reporter of {conductor.host}", daemon=True)
        self._conductor = conductor
        self._repair = repair
        self._take_inventory = take_inventory
        self._own = own
        self._interval = interval
        self._repaired_at = 0.0
        self._published: str | None = None
        self._repaired = False
        self._answers: dict[UUID, _Answer] = {}
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._ending = threading.Event()

    def answer(self, step: Step, ending: Ending, *, is_awaited: bool = False) -> None:
        """Send the answer to a step as soon as possible.

        ``is_awaited``: the conductor sends the step again until it has recorded an answer. So the answer
        needs no reply.
        """
        with self._lock:
            self._answers[step.claim_id] = _Answer(step, ending, is_awaited)
        self.wake()

    def wake(self) -> None:
        """Report now."""
        self._woken.set()

    def report(self) -> None:
        """Report now, by a call: the conductor has asked for it."""
        self._conductor.doubt()
        self.wake()

    def repair(self) -> None:
        """Repair and report now: a claim has lost a device, or its device is back."""
        self._repaired_at = -math.inf
        self.wake()

    def end(self) -> None:
        """Send the answers that are left, if the conductor answers soon, and return.

        The conductor sends the step again if it gets no answer, and the ledger has the answer.
        """
        self._ending.set()
        self.wake()
        if self.is_alive():
            self.join(LAST_REPORT)

    def run(self) -> None:
        """Repeat rounds until :meth:`end`. An error in one round does not prevent the next."""
        told = True
        while not self._ending.is_set():
            self._woken.clear()
            told = self._round_until_told()
            self._woken.wait(self._interval)
        if told and self._answers:
            self._round_until_told()

    def _round_until_told(self) -> bool:
        """Was everything sent? False if the agent was stopped first."""
        again = tenacity.Retrying(
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=self._interval),
            stop=tenacity.stop_when_event_set(self._ending),
            sleep=tenacity.sleep_using_event(self._ending),
            after=_log_failure,
            retry_error_callback=lambda _state: False,
        )
        return again(self._round)

    def _round(self) -> bool:
        with self._lock:
            answers = list(self._answers.values())
        self._repair_once()
        if self._publish():
            self._tell(answers)
        return True

    def _repair_once(self) -> None:
        if self._repaired and time.monotonic() < self._repaired_at + REPAIR_INTERVAL:
            return
        self._repaired_at = time.monotonic()
        try:
            self._repair.run(self._conductor.holdings)
            self._repaired = True
        except UnknownHost:
            self._repaired = True  # a host that the conductor does not know
        except ServiceUnavailable:
            self._repaired_at = -math.inf  # claims may change before the next try
            raise
        except DriverError as error:
            LOG.warning("the repair failed and is tried again: %s", error)
            self._repaired, self._repaired_at = True, -math.inf  # again in the next regular round
        except HostOwnedByAnotherAgent:
            pass  # the report takes the host over if the other agent is silent

    def _publish(self) -> bool:
        """Does the conductor accept this agent as the host's?"""
        inventory = self._take_inventory()
        try:
            if inventory.digest == self._published and self._conductor.publish(inventory, in_full=False):
                # Claims may have been ended by force: their devices here must not be offered.
                self._published, self._repaired_at = None, -math.inf
                self._repair_once()
                inventory = self._take_inventory()
            if inventory.digest != self._published:
                self._conductor.publish(inventory, in_full=True)
        except HostOwnedByAnotherAgent as error:
            LOG.error("this agent takes no steps: %s", error)  # noqa: TRY400 - the message says it all
            self._published, self._repaired = None, False
            self._own(False)
            return False
        self._published = inventory.digest
        self._own(True)
        if not self._repaired:
            self.wake()
        return True

    def _tell(self, answers: list[_Answer]) -> None:
        awaited = [answer for answer in answers if answer.is_awaited]
        if awaited:
            self._conductor.cast_answers([(answer.step, answer.ending) for answer in awaited])
            self._forget(awaited)
        failure: ServiceFailed | None = None
        for answer in answers:
            if not answer.is_awaited:
                failure = self._call(answer) or failure
        if failure is not None:
            raise failure

    def _call(self, answer: _Answer) -> ServiceFailed | None:
        """Answer, and wait until it is recorded. A failure may be of this answer alone."""
        try:
            self._conductor.answer(answer.step, answer.ending)
        except _NOT_WANTED as error:
            LOG.info("the conductor does not want an answer: %s", error)
            if answer.step.action != "detach" and answer.ending.outcome != "failed":
                self._repaired_at = -math.inf
                self.wake()
        except ServiceFailed as error:
            return error
        self._forget([answer])
        return None

    def _forget(self, sent: list[_Answer]) -> None:
        """Another answer for the same claim may have come meanwhile. It stays."""
        with self._lock:
            for answer in sent:
                if self._answers.get(answer.step.claim_id) is answer:
                    del self._answers[answer.step.claim_id]


def _log_failure(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, PortclaimError | ScanError):
        LOG.warning("reporting to the conductor failed and is tried again: %s", error)
    else:
        LOG.error("reporting to the conductor failed and is tried again", exc_info=error)
