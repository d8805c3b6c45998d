"""Calls as logs and metrics see them. A call has in its context when it was sent, and for which request."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from portclaim.common import log_context, tracing
from portclaim.common.errors import PortclaimError
from portclaim.common.metrics import kinds
from portclaim.common.metrics.catalogue import CLAIM_PHASES, RPC_ERRORS, RPC_QUEUE_SECONDS, RPC_SECONDS

_SENT = "sent_at"
_REQUEST = "request_id"
_CLAIM = "claim"


def sent_now() -> dict[str, Any]:
    """The context of a call that is sent now, with its trace. Releases that do not know it ignore it."""
    return {_SENT: time.time(), _REQUEST: log_context.request_id(), **tracing.sent()}


@contextmanager
def observed(method: str, context: Mapping[str, Any], fields: Mapping[str, Any]) -> Iterator[None]:
    """In this block, lines of the log are about the call and what it names, and it has a span if its trace
    is made. Nothing of the call was checked yet.
    """
    facts = log_context.printable(
        request_id=context.get(_REQUEST) or log_context.new_request_id(),
        claim_id=fields.get("claim_id"),
        host=fields.get("host"),
    )
    with (
        tracing.received(context),
        tracing.receiving(method, context, facts),
        log_context.about(trace_id=tracing.trace_id(), **facts),
        measured(method, context),
    ):
        yield


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
