"""The agent's one voice: inventory first, then the answers to steps, in this order and never two at once."""

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
from portclaim.common.rpc.messages import Step
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.inventory import Inventory
from portclaim.services.compute_agent.ledger import Ending
from portclaim.services.compute_agent.repair import Repair
from portclaim.services.compute_agent.scanner import ScanError
from portclaim.services.compute_agent.voice import Voice

LOG = logging.getLogger(__name__)

REPAIR_INTERVAL = 60.0
LAST_WORDS = 5.0  # seconds

_NOT_WANTED = (StaleStep, ClaimNotFound, InvalidRequest, HostOwnedByAnotherAgent)


class _Answer(NamedTuple):
    step: Step
    ending: Ending


class Reporter(threading.Thread):
    """Publishes every ``interval`` seconds, and at once when woken or given an answer.

    An answer is told only after an inventory that was taken later than the step's end, so that the
    conductor knows the VFs of a port before it hears that the port is back. While the conductor
    does not answer, a round is made again and again, and no answer is forgotten.

    Repair comes first in the first round, and then again after ``REPAIR_INTERVAL`` seconds, and whenever
    the conductor has forgotten the inventory or refuses an attach that was done.
    ``take_inventory`` scans the host. ``own`` is called with True once the conductor takes this
    agent for the host's, and with False once it takes another for it.
    """

    def __init__(
        self,
        voice: Voice,
        repair: Repair,
        take_inventory: Callable[[], Inventory],
        own: Callable[[bool], None],
        interval: float,
    ) -> None:
        super().__init__(name=f"reporter of {voice.host}", daemon=True)
        self._voice = voice
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

    def answer(self, step: Step, ending: Ending) -> None:
        """Tell the conductor how a step ended, as soon as it can be told."""
        with self._lock:
            self._answers[step.claim_id] = _Answer(step, ending)
        self.wake()

    def wake(self) -> None:
        """Have a look at the host now."""
        self._woken.set()

    def end(self) -> None:
        """Tell what is still to be told, if the conductor can be reached soon, and return.

        An answer that it does not hear now it asks for again, and the ledger has it.
        """
        self._ending.set()
        self.wake()
        if self.is_alive():
            self.join(LAST_WORDS)

    def run(self) -> None:
        """Rounds without end; no fault of one ends the next."""
        told = True
        while not self._ending.is_set():
            self._woken.clear()
            told = self._round_until_told()
            self._woken.wait(self._interval)
        if told and self._answers:
            self._round_until_told()

    def _round_until_told(self) -> bool:
        """Was everything told? Not so only when the end came first."""
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
            self._repair.run(self._voice.holdings)
            self._repaired = True
        except UnknownHost:
            self._repaired = True  # a host without a past
        except ServiceUnavailable:
            self._repaired_at = -math.inf  # who knows what is decided meanwhile
            raise
        except DriverError as error:
            LOG.warning("not repaired yet: %s", error)
            self._repaired, self._repaired_at = True, -math.inf  # in the next round, but that in its time
        except HostOwnedByAnotherAgent:
            pass  # this one's report may take the host over, if that other is silent

    def _publish(self) -> bool:
        """Is this host ours?"""
        inventory = self._take_inventory()
        try:
            if inventory.digest == self._published and self._voice.publish(inventory, in_full=False):
                # Claims may have been ended there unasked: what they have left here is not to be offered.
                self._published, self._repaired_at = None, -math.inf
                self._repair_once()
                inventory = self._take_inventory()
            if inventory.digest != self._published:
                self._voice.publish(inventory, in_full=True)
        except HostOwnedByAnotherAgent as error:
            LOG.error("no steps are taken: %s", error)  # noqa: TRY400 - the message says it all
            self._published, self._repaired = None, False
            self._own(False)
            return False
        self._published = inventory.digest
        self._own(True)
        if not self._repaired:
            self.wake()
        return True

    def _tell(self, answers: list[_Answer]) -> None:
        failure: ServiceFailed | None = None
        for answer in answers:
            try:
                self._voice.answer(answer.step, answer.ending)
            except _NOT_WANTED as error:
                LOG.info("an answer is not wanted: %s", error)
                if (answer.step.action, answer.ending.outcome) == ("attach", "done"):
                    self._repaired_at = -math.inf
                    self.wake()
            except ServiceFailed as error:  # of this answer perhaps: the others are not to wait for it
                failure = error
                continue
            with self._lock:
                if self._answers.get(answer.step.claim_id) is answer:
                    del self._answers[answer.step.claim_id]
        if failure is not None:
            raise failure


def _log_failure(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, PortclaimError | ScanError):
        LOG.warning("the conductor is told later: %s", error)
    else:
        LOG.error("the conductor is told later", exc_info=error)
