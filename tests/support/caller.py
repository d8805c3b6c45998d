"""Callers that claim and release without end, and remember what they were told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from uuid import UUID, uuid4

from portclaim.common.errors import ClaimNotFound, ClaimRefused, ServiceUnavailable
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import wait_until
from tests.support.one_host import OneHost

PATIENCE = 120.0  # seconds in which a lost server must have been replaced, on a busy machine
PAUSE = 0.1  # seconds before a caller calls again


class Caller(threading.Thread):
    """Claims a VF, releases it, and so on, each call until it is answered.

    ``claimed``, ``released``: the claims for which it was told so. ``answers``: the moments of all answers.
    ``failed``: how many calls failed with a clear error. ``ending``: end after the release of the claim that
    it has, if anybody answers.
    """

    def __init__(self, fleet: OneHost) -> None:
        super().__init__()
        self._fleet = fleet
        self.ending = threading.Event()
        self.claimed: list[UUID] = []
        self.released: list[UUID] = []
        self.answers: list[float] = []
        self.failed = 0

    def run(self) -> None:
        while not self.ending.is_set():
            claim_id = uuid4()
            claim = partial(self._fleet.claim, "vf:1", claim_id=claim_id, instance_id=uuid4())
            self._persist(claim, self.claimed)
            self._persist(partial(self._fleet.scheduler.release, claim_id), self.released)

    def _persist(self, call: Callable[[], Claim], answered: list[UUID]) -> None:
        last: float | None = None
        while last is None or time.monotonic() < last:
            try:
                answered.append(call().claim_id)
            except ServiceUnavailable:  # called again, as a caller does
                self.failed += 1
            except ClaimRefused:  # what was released is not back yet
                pass
            except (
                ClaimNotFound
            ):  # a scheduler still reads from a former primary; a lost claim is found later
                self.failed += 1
            else:
                self.answers.append(time.monotonic())
                return
            time.sleep(PAUSE)
            if last is None and self.ending.is_set():
                last = time.monotonic() + PATIENCE


class Callers:
    """Several of them at once."""

    def __init__(self, fleet: OneHost, count: int = 3) -> None:
        self._callers = [Caller(fleet) for _ in range(count)]
        for caller in self._callers:
            caller.start()

    @property
    def claimed(self) -> set[UUID]:
        return {claim_id for caller in self._callers for claim_id in caller.claimed}

    @property
    def released(self) -> set[UUID]:
        return {claim_id for caller in self._callers for claim_id in caller.released}

    @property
    def failed(self) -> int:
        """How many calls failed with a clear error so far."""
        return sum(caller.failed for caller in self._callers)

    def wait_for_answers(self) -> float:
        """Wait until each caller had two more answers, so it has asked for one of them after this call.

        Returns how many seconds that took.
        """
        began, before = time.monotonic(), [len(caller.answers) for caller in self._callers]
        wait_until(
            lambda: all(
                len(caller.answers) >= count + 2 for caller, count in zip(self._callers, before, strict=True)
            ),
            "all callers are answered",
            PATIENCE,
        )
        return time.monotonic() - began

    def end(self) -> None:
        for caller in self._callers:
            caller.ending.set()
        for caller in self._callers:
            caller.join()
