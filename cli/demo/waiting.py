"""Wait for what other threads bring about: ask again until it is so, and not forever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import tenacity

from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.scheduler import SchedulerClient

T = TypeVar("T")

DEADLINE = 30.0  # seconds
_PAUSE = 0.05


class DemoFailed(Exception):
    """What the demo promises did not come about."""


def until(ask: Callable[[], T], is_so: Callable[[T], bool], what: str) -> T:
    """Ask until the answer is as it should be; return it. Raises :class:`DemoFailed` after ``DEADLINE``."""
    again = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda answer: not is_so(answer)),
        stop=tenacity.stop_after_delay(DEADLINE),
        wait=tenacity.wait_fixed(_PAUSE),
    )
    try:
        return again(ask)
    except tenacity.RetryError as error:
        seen = error.last_attempt.result()
        raise DemoFailed(f"{what}: not so within {DEADLINE:.0f} s, but {seen}") from None


def until_status(scheduler: SchedulerClient, claim_id: UUID, status: str) -> Claim:
    """Wait for a claim to get this far. Raises :class:`DemoFailed`, at once where the claim has failed."""
    claim = until(
        lambda: scheduler.show(claim_id),
        lambda claim: claim.status in {status, "failed"},
        f"claim {claim_id} is {status}",
    )
    if claim.status != status:
        raise DemoFailed(f"claim {claim_id} on {claim.host} is {claim.status}: {claim.reason}")
    return claim


def check(is_so: bool, what: str) -> None:
    """Raise :class:`DemoFailed` where ``what`` is not so."""
    if not is_so:
        raise DemoFailed(f"not so: {what}")
