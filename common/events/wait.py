"""Wait for a claim until it has a status. The events of the claim wake the caller.

The caller waits on a queue of its own, so no service holds anything for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal, TypeVar
from uuid import UUID

from oslo_config import cfg

from portclaim.common.errors import (
    ClaimEnded,
    InvalidRequest,
    ServiceUnavailable,
    UnknownSchema,
    WaitTimeout,
)
from portclaim.common.events import broker
from portclaim.common.events.schema import EventFilter, claim_key
from portclaim.common.events.stream import EventStream
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.move_messages import Move, MoveRequest

LOG = logging.getLogger(__name__)

T = TypeVar("T")

Goal = Literal["claimed", "prepared", "allocated", "released", "ended"]
"""What to wait for. A claim that is further counts too: an allocated claim is prepared. ``ended`` is any end:
``released``, ``failed`` or ``expired``."""

_ENDS = frozenset({"released", "failed", "expired"})
_REACHED: dict[Goal, frozenset[str]] = {
    "claimed": frozenset({"claimed", "prepared", "allocated"}),
    "prepared": frozenset({"prepared", "allocated"}),
    "allocated": frozenset({"allocated"}),
    "released": frozenset({"released"}),
    "ended": _ENDS,
}
_MISSED: dict[Goal, frozenset[str]] = {
    "claimed": _ENDS | {"releasing"},
    "prepared": _ENDS | {"releasing"},
    "allocated": _ENDS | {"releasing"},
    "released": _ENDS - {"released"},
    "ended": frozenset(),
}
_ADVICE = {
    "waiting": "`portclaim waiting` shows its position in its queue",
    "claimed": "`portclaim outbox list` shows whether its agent has answered",
    "prepared": "its instance has not got the devices yet",
    "allocated": "nobody has released it",
    "releasing": "`portclaim outbox list` shows whether its agent has answered",
}

# An event may not come: events are off, the broker restarts, or all conductors are down.
_FIRST_PAUSE = 1.0  # seconds without an event until the claim is looked up; it doubles each time
_LONGEST_PAUSE = 10.0


def is_over(status: str, until: Goal) -> bool:
    """Whether a wait for ``until`` ends: the claim is that far, or cannot be any more."""
    return status in _REACHED[until] or status in _MISSED[until]


def wait(
    conf: cfg.ConfigOpts, claim_id: UUID, look: Callable[[], Claim], until: Goal, timeout: float | None
) -> Claim:
    """The claim as soon as it is what ``until`` says. ``look`` looks it up.

    Raises :class:`ClaimEnded`, :class:`WaitTimeout` after ``timeout`` seconds (None: no limit),
    :class:`InvalidRequest` for an unknown ``until``, and what ``look`` raises at first. Later it goes on
    while the scheduler or the broker is away.
    """
    if until not in _REACHED:
        raise InvalidRequest(f"cannot wait until a claim is {until!r}: use one of {', '.join(_REACHED)}")
    claim = _follow(conf, (claim_id,), look, lambda claim: _is_reached(claim, until), timeout)
    return reached(claim, until, timeout)


def reached(claim: Claim, until: Goal, timeout: float | None) -> Claim:
    """The claim, if it is what was waited for. Raises :class:`ClaimEnded`, and :class:`WaitTimeout`."""
    if _is_reached(claim, until):
        return claim
    raise WaitTimeout(
        f"after {timeout or 0:g} s claim {claim.claim_id} is {claim.status}, not {until}: "
        f"{_ADVICE.get(claim.status, 'wait again')}",
        claim_id=str(claim.claim_id),
        status=claim.status,
        until=until,
        timeout=timeout,
    )


def wait_until_ready(
    conf: cfg.ConfigOpts, request: MoveRequest, look: Callable[[], Move], timeout: float | None
) -> Move:
    """A live move as soon as its guest can be migrated. ``look`` looks it up.

    Raises :class:`ClaimEnded` if the move was reverted or is completed, :class:`WaitTimeout`, and what
    ``look`` raises at first.
    """
    move = _follow(conf, (request.source_claim_id, request.claim_id), look, _is_ready, timeout)
    if _is_ready(move):
        return move
    raise WaitTimeout(
        f"after {timeout:g} s the guest of claim {request.source_claim_id} cannot be migrated yet: its "
        f"source is {move.source.status} and its target {move.target.status}, and both must be prepared",
        claim_id=str(request.claim_id),
        status=move.target.status,
        until="ready",
        timeout=timeout,
    )


def _follow(
    conf: cfg.ConfigOpts,
    claim_ids: tuple[UUID, ...],
    look: Callable[[], T],
    is_reached: Callable[[T], bool],
    timeout: float | None,
) -> T:
    """What ``look`` says as soon as ``is_reached``, or what it said last when ``timeout`` is over."""
    deadline = float("inf") if timeout is None else time.monotonic() + timeout
    seen = look()
    if is_reached(seen):
        return seen
    pause = _FIRST_PAUSE
    with _EventsOfClaims(conf, claim_ids) as events:
        while (left := deadline - time.monotonic()) > 0:
            events.await_news(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                seen = look()
            except ServiceUnavailable as error:
                LOG.info("cannot look up claim %s, and will try again: %s", claim_ids[-1], error)
                continue
            if is_reached(seen):
                break
    return seen


class _EventsOfClaims(EventStream):
    """The events of a few claims. RabbitMQ sends no others, so that many callers may wait in a busy fleet."""

    def __init__(self, conf: cfg.ConfigOpts, claim_ids: tuple[UUID, ...]) -> None:
        self._claim_ids = claim_ids
        super().__init__(conf, EventFilter(kinds=("claim",), claim_ids=claim_ids))

    def await_news(self, timeout: float) -> None:
        """Return when something may have happened to a claim: at the latest after ``timeout`` seconds."""
        until = time.monotonic() + timeout
        try:
            self.next_event(timeout)
        except (ServiceUnavailable, UnknownSchema) as error:
            LOG.info("no events of claim %s for now: %s", self._claim_ids[-1], error)
            time.sleep(max(until - time.monotonic(), 0))

    def _binding_keys(self) -> list[str]:
        if broker.has_second_keys(self._connection):
            return [claim_key(claim_id) for claim_id in self._claim_ids]
        return super()._binding_keys()


def _is_ready(move: Move) -> bool:
    """Whether the guest can be migrated now. Raises :class:`ClaimEnded` if it need not be any more."""
    if move.status in {"completed", "reverted"}:
        why = f": {move.reason}" if move.reason else ""
        raise ClaimEnded(
            f"the move to claim {move.target.claim_id} is {move.status}{why}",
            claim_id=str(move.target.claim_id),
            status=move.target.status,
            until="ready",
            reason=move.reason,
        )
    return move.ready


def _is_reached(claim: Claim, until: Goal) -> bool:
    """Whether the claim is what was waited for. Raises :class:`ClaimEnded` if it cannot be any more."""
    if claim.status in _MISSED[until]:
        why = f": {claim.reason}" if claim.reason else ""
        raise ClaimEnded(
            f"claim {claim.claim_id} is {claim.status} and will not be {until}{why}",
            claim_id=str(claim.claim_id),
            status=claim.status,
            until=until,
            reason=claim.reason,
        )
    return claim.status in _REACHED[until]
