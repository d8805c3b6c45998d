"""Connections and transactions: how work reaches PostgreSQL and when it may be done again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
import tenacity
from sqlalchemy import exc

from portclaim.common.errors import ServiceUnavailable

LOG = logging.getLogger(__name__)
T = TypeVar("T")

# PostgreSQL, appendix A: serialization_failure, deadlock_detected. Nothing was done; do it again.
_TRY_AGAIN = frozenset({"40001", "40P01"})

# lock_not_available: whoever holds the lock for so long is stuck, and will not be helped by more tries.
_STUCK = "55P03"

# insufficient_resources: no room on a disk, no memory, too many connections. That is for people to mend.
_EXHAUSTED = "53"

SESSION_OPTIONS = " ".join(
    f"-c {setting}"
    for setting in (
        # Here, and not the driver's affair: it would say so to the server in a round trip of its own.
        r"default_transaction_isolation=read\ committed",
        # One plan per prepared statement: planning anew for each call costs more than the call.
        "plan_cache_mode=force_generic_plan",
        # The plan is kept while tables grow, those of foreign keys included. One made when a table was nearly
        # empty would read all of it for ever after: measured, ten times the cost of a claim.
        "enable_seqscan=off",
        "random_page_cost=1.1",  # what claims look at is in memory
        # A worker that is stopped or cut off in the middle of a transaction must not hold up the others.
        "idle_in_transaction_session_timeout=15s",
        "lock_timeout=10s",
        "timezone=UTC",
        "jit=off",  # compiling takes longer than any statement here
    )
)
"""How PostgreSQL plans for the services, as libpq's ``options``."""

_ATTEMPTS = 6
_LONGEST_PAUSE = 1.0  # seconds


def connect(url: str, pool_size: int) -> sa.Engine:
    """An engine with at most ``pool_size`` connections.

    That the server has dropped them (restart, fail-over) shows when one is used: then all are replaced,
    and the work is done again.
    """
    return sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,
        connect_args={
            "application_name": "portclaim",
            "connect_timeout": 10,
            "options": SESSION_OPTIONS,
        },
    )


def in_transaction(engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
    """Run ``work`` in one transaction and commit; on a passing fault of the database, run it again.

    **Only for work that looks up its own outcome first** (a claim by its id, a step by its number),
    because a connection may be lost between the commit and its answer: the second run then has to
    find what the first one did. Raises :class:`ServiceUnavailable` when the fault does not pass.
    """

    def attempt() -> T:
        with engine.begin() as connection:
            return work(connection)

    return persistently(attempt)


def persistently(attempt: Callable[[], T]) -> T:
    """Attempt, and on a passing fault of the database attempt again.

    Raises :class:`ServiceUnavailable` when the fault does not pass.
    """
    try:
        try:
            return attempt()
        except exc.DBAPIError as error:
            if not _passes(error):
                raise
            return _AGAIN(attempt)
    except exc.DBAPIError as error:
        if _state(error).startswith(_EXHAUSTED):
            reason = str(error.orig).partition("\n")[0]
            raise ServiceUnavailable(f"the database is short of something: {reason}") from error
        if not _passes(error) and _state(error) != _STUCK:
            raise
        raise ServiceUnavailable(
            "the database does not answer or is too contended; calling again is safe"
        ) from error
    except exc.TimeoutError as error:
        raise ServiceUnavailable("all database connections are busy; calling again is safe") from error


def _passes(error: BaseException) -> bool:
    if not isinstance(error, exc.DBAPIError):
        return False
    return (
        error.connection_invalidated
        or _state(error) in _TRY_AGAIN
        or (isinstance(error, exc.OperationalError) and not _state(error))
    )


def _state(error: exc.DBAPIError) -> str:
    """The SQLSTATE that the server gave; empty where it said nothing."""
    return getattr(error.orig, "pgcode", None) or ""


_AGAIN = tenacity.Retrying(
    retry=tenacity.retry_if_exception(_passes),
    stop=tenacity.stop_after_attempt(_ATTEMPTS),
    wait=tenacity.wait_random_exponential(multiplier=0.02, max=_LONGEST_PAUSE),
    before_sleep=tenacity.before_sleep_log(LOG, logging.INFO),
    reraise=True,
)
