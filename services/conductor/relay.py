"""Send again the steps that no agent has answered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import sqlalchemy as sa

from common.db import outbox
from common.db.transaction import in_transaction
from common.errors import PortclaimError
from common.rpc.messages import Step

LOG = logging.getLogger(__name__)
_BATCH = 100


class Relay(threading.Thread):
    """Looks for due steps every ``pause`` seconds. Any number of relays share the work."""

    def __init__(
        self, engine: sa.Engine, send: Callable[[str, Step], None], resend_after: float, pause: float
    ) -> None:
        super().__init__(name="relay", daemon=True)
        self._engine = engine
        self._send = send
        self._resend_after = resend_after
        self._pause = pause
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(self._pause):
            try:
                while self.pass_on() == _BATCH and not self._ending.is_set():
                    continue
            except PortclaimError as error:
                LOG.warning("steps will be sent later: %s", error)
            except Exception:
                LOG.exception("a pass of the relay failed; the next one comes in %s s", self._pause)

    def pass_on(self) -> int:
        """Send what is due, at most one batch; answer how many steps that were."""
        due = in_transaction(
            self._engine, lambda connection: outbox.take_due(connection, _BATCH, self._resend_after)
        )
        for host, step in due:
            LOG.info("again to %s: step %s, %s, of claim %s", host, step.step, step.action, step.claim_id)
            self._send(host, step)
        return len(due)

    def end(self) -> None:
        """Finish the pass in hand and return."""
        self._ending.set()
        if self.is_alive():
            self.join()
