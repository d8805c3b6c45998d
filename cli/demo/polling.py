"""Wait for what other threads do: ask again until the answer is the expected one, or until a deadline."""

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
    """The demo saw something else than it expected."""


def until(ask: Callable[[], T], is_so: Callable[[T], bool], what: str) -> T:
    """Ask until ``is_so(answer)``, and return the answer. Raises :class:`DemoFailed` after ``DEADLINE``."""
    again = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda answer: not is_so(answer)),
        stop=tenacity.stop_after_delay(DEADLINE),
        wait=tenacity.wait_fixed(_PAUSE),
    )
    try:
        return again(ask)
    except tenacity.RetryError as error:
        seen = error.last_attempt.result()
        raise DemoFailed(f"expected within {DEADLINE:.0f} s: {what}. Last answer: {seen}") from None


def until_status(scheduler: SchedulerClient, claim_id: UUID, status: str) -> Claim:
    """Wait until a claim has this status. Raises :class:`DemoFailed`, immediately if the claim fails."""
    claim = until(
        lambda: scheduler.show(claim_id),
        lambda claim: claim.status in {status, "failed"},
        f"claim {claim_id} is {status}",
    )
    if claim.status != status:
        raise DemoFailed(f"claim {claim_id} on {claim.host} is {claim.status}: {claim.reason}")
    return claim


def check(is_so: bool, what: str) -> None:
    """Raise :class:`DemoFailed` unless ``is_so``. ``what``: what was expected."""
    if not is_so:
        raise DemoFailed(f"expected: {what}")
