"""The work on a step as logs, metrics and traces see it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from portclaim.common import log_context, tracing
from portclaim.common.metrics.catalogue import CLAIM_PHASES, STEP_SECONDS
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.ledger import Ending


@contextmanager
def observed(step: Step, host: str) -> Iterator[None]:
    """In this block, lines of the log are about the step, and it has a span, to which its answer belongs."""
    with (
        tracing.span(step.action, parent=step.trace, portclaim_claim__id=str(step.claim_id)),
        log_context.about(
            claim_id=step.claim_id,
            host=host,
            request_id=step.request_id,
            trace_id=tracing.trace_id(),
        ),
    ):
        step.traced(tracing.current() or step.trace)
        yield


def measured(step: Step, do: Callable[[], Ending | None]) -> Ending | None:
    """Do it, and measure how long it took."""
    begun = time.perf_counter()
    ending = do()
    seconds = time.perf_counter() - begun
    outcome = "none" if ending is None else ending.outcome
    STEP_SECONDS.observe(seconds, step.action, outcome)
    if step.action == "attach" and outcome == "done":
        CLAIM_PHASES.observe(seconds, "attach")
    return ending
