"""A caller that claims and releases without end, and remembers what it was told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from uuid import UUID, uuid4

from portclaim.common.errors import ClaimRefused, ServiceUnavailable
from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import wait_until
from tests.support.one_host import OneHost

PATIENCE = 120.0  # seconds in which a lost server must have been replaced, on a busy machine


class Caller(threading.Thread):
    """Claims a VF, releases it, and so on. ``answered``: the claims that it was told about."""

    def __init__(self, fleet: OneHost) -> None:
        super().__init__()
        self._fleet = fleet
        self._ending = threading.Event()
        self.answered: list[UUID] = []

    def run(self) -> None:
        while not self._ending.is_set():
            claim_id = uuid4()
            claim = partial(self._fleet.claim, "vf:1", claim_id=claim_id, instance_id=uuid4())
            self._persist(claim, claim_id)
            self._persist(partial(self._fleet.scheduler.release, claim_id), claim_id)

    def _persist(self, call: Callable[[], Claim], claim_id: UUID) -> None:
        while not self._ending.is_set():
            try:
                call()
            except (ServiceUnavailable, ClaimRefused):  # called again, as a caller does
                self._ending.wait(0.1)
                continue
            self.answered.append(claim_id)
            return

    def wait_for_answers(self) -> None:
        """Wait until two more claims were answered, so one was asked for after this call."""
        before = len(self.answered)
        wait_until(lambda: len(self.answered) >= before + 2, "claims are answered", PATIENCE)

    def end(self) -> None:
        self._ending.set()
        self.join()
