"""How long calls wait and take, for Prometheus. The caller writes into a call's context when it was sent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from portclaim.common.errors import PortclaimError
from portclaim.common.metrics import kinds
from portclaim.common.metrics.catalogue import CLAIM_PHASES, RPC_ERRORS, RPC_QUEUE_SECONDS, RPC_SECONDS

_SENT = "sent_at"
_CLAIM = "claim"


def sent_now() -> dict[str, Any]:
    """The context of a call that is sent now. Releases that do not know it ignore it."""
    return {_SENT: time.time()}


@contextmanager
def measured(method: str, context: Mapping[str, Any]) -> Iterator[None]:
    """Measure the work on a call. A clock that is behind the caller's makes the wait zero."""
    if not kinds.is_on():
        yield
        return
    sent = context.get(_SENT)
    if isinstance(sent, float):
        waited = max(time.time() - sent, 0.0)
        RPC_QUEUE_SECONDS.observe(waited, method)
        if method == _CLAIM:
            CLAIM_PHASES.observe(waited, "queue")
    try:
        with RPC_SECONDS.timed(method):
            yield
    except PortclaimError as error:
        RPC_ERRORS.count(method, type(error).__name__)
        raise
