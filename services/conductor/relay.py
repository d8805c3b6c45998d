"""The relay: it sends steps again that no agent has answered."""

from __future__ import annotations

import logging
from collections.abc import Callable

import sqlalchemy as sa

from portclaim.common.db import outbox
from portclaim.common.db.transaction import in_transaction
from portclaim.common.metrics.catalogue import STEPS_RESENT
from portclaim.common.rpc.agent_messages import Step

LOG = logging.getLogger(__name__)
_BATCH = 100


class Relay:
    """Sends the steps that are due. Any number of relays share the work."""

    def __init__(
        self, engine: sa.Engine, send: Callable[[str, Step], None], resend_after: float, max_sends: int
    ) -> None:
        self._engine = engine
        self._send = send
        self._resend_after = resend_after
        self._max_sends = max_sends

    def work(self) -> bool:
        """Send a batch; answer whether there may be more."""
        return self.send_due() == _BATCH

    def send_due(self) -> int:
        """Send the steps that are due, at most one batch; answer how many."""
        due = in_transaction(
            self._engine,
            lambda connection: outbox.take_due(connection, _BATCH, self._resend_after, self._max_sends),
        )
        for host, step in due:
            LOG.info(
                "sending again to %s: step %s, %s, of claim %s", host, step.step, step.action, step.claim_id
            )
            self._send(host, step)
            STEPS_RESENT.count()
        return len(due)
