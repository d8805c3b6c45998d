"""Connections and transactions: how to run work in PostgreSQL, and when to run it again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
import tenacity
from sqlalchemy import event, exc

from portclaim.common.db.deadline import Deadline
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.metrics import sampling
from portclaim.common.metrics.catalogue import DATABASE_ERRORS, DATABASE_RETRIES

LOG = logging.getLogger(__name__)
T = TypeVar("T")

# PostgreSQL, appendix A: serialization_failure, deadlock_detected. The transaction was undone, so run it
# again.
_TRY_AGAIN = frozenset({"40001", "40P01"})

# lock_not_available: a transaction that holds a lock for so long is stuck. More tries do not help.
_STUCK = "55P03"

# read_only_sql_transaction: the server of this connection is no longer the primary.
READ_ONLY = "25006"

# insufficient_resources: a full disk, no memory, too many connections. An operator must act.
_EXHAUSTED = "53"

SESSION_OPTIONS = " ".join(
    f"-c {setting}"
    for setting in (
        # Set here, because the driver would set it in a round trip of its own.
        r"default_transaction_isolation=read\ committed",
        # One plan per prepared statement: planning anew for each call costs more than the call.
        "plan_cache_mode=force_generic_plan",
        # Plans are kept while tables grow, those of foreign keys included. A plan that was made when a table
        # was nearly empty would read the whole table for ever: measured, ten times the cost of a claim.
        "enable_seqscan=off",
        "random_page_cost=1.1",  # what claims read is in memory
        # A worker that is stopped or cut off in the middle of a transaction must not block the others.
        "idle_in_transaction_session_timeout=15s",
        "lock_timeout=10s",
        "timezone=UTC",
        "jit=off",  # compiling takes longer than any statement here
    )
)
"""How PostgreSQL plans for the services, as libpq's ``options``."""

ANSWER_WITHIN = 60.0
"""How long a transaction may take, in seconds, unless the caller of :func:`connect` says otherwise."""

_ATTEMPTS = 6
_LONGEST_PAUSE = 1.0  # seconds


# A machine that is lost, or that a cut network hides, sends no end of a connection (seconds; the last in ms).
_KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


def connect(
    url: str,
    pool_size: int,
    answer_within: float = ANSWER_WITHIN,
    *,
    application_name: str = "portclaim",
    more_options: str = "",
) -> sa.Engine:
    """An engine with at most ``pool_size`` connections. ``more_options``: for libpq, after the usual ones.

    After a restart or fail-over of the server, the first connection that is used fails. Then all are replaced
    and the work runs again. A transaction that takes longer than ``answer_within`` seconds loses its
    connection, because its server may hang.
    """
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,
        hide_parameters=True,  # an error that is logged says no parameters: one may be the hash of a token
        connect_args={
            "application_name": application_name,
            "connect_timeout": 10,
            "options": f"{SESSION_OPTIONS} {more_options}",
            **_KEEPALIVE,
        },
    )
    event.listen(engine, "handle_error", _leave_former_primary)
    Deadline(answer_within).watch(engine)
    sampling.ENGINES.add(engine)
    return engine


def _leave_former_primary(context: sa.engine.ExceptionContext) -> None:
    if getattr(context.original_exception, "pgcode", None) == READ_ONLY:
        context.is_disconnect = True


def in_transaction(engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
    """Run ``work`` in one transaction and commit. On a transient error of the database, run it again.

    **Only for work that looks up its own outcome first** (a claim by its id, a step by its number),
    because a connection may be lost between the commit and its answer: then the second run must find what the
    first one did. Raises :class:`ServiceUnavailable` when the error stays.
    """

    def attempt() -> T:
        with engine.begin() as connection:
            return work(connection)

    return persistently(attempt)


def persistently(attempt: Callable[[], T]) -> T:
    """Call ``attempt``, and again on a transient error of the database.

    Raises :class:`ServiceUnavailable` when the error stays.
    """
    try:
        try:
            return attempt()
        except exc.DBAPIError as error:
            if not _is_transient(error):
                raise
            DATABASE_RETRIES.count()
            return _AGAIN(attempt)
    except exc.DBAPIError as error:
        if _state(error).startswith(_EXHAUSTED):
            reason = str(error.orig).partition("\n")[0]
            DATABASE_ERRORS.count("exhausted")
            raise ServiceUnavailable(f"the database has run out of a resource: {reason}") from error
        if not _is_transient(error) and _state(error) != _STUCK:
            raise
        DATABASE_ERRORS.count("stuck lock" if _state(error) == _STUCK else "unavailable")
        raise ServiceUnavailable(
            "the database does not answer or is overloaded: call again, which is safe"
        ) from error
    except exc.TimeoutError as error:
        DATABASE_ERRORS.count("pool busy")
        raise ServiceUnavailable("all database connections are busy: call again, which is safe") from error


def _is_transient(error: BaseException) -> bool:
    if not isinstance(error, exc.DBAPIError):
        return False
    return (
        error.connection_invalidated
        or _state(error) in _TRY_AGAIN
        or (isinstance(error, exc.OperationalError) and not _state(error))
    )


def _state(error: exc.DBAPIError) -> str:
    """The SQLSTATE from the server; empty: there is none."""
    return getattr(error.orig, "pgcode", None) or ""


def _told(state: tenacity.RetryCallState) -> None:
    DATABASE_RETRIES.count()
    tenacity.before_sleep_log(LOG, logging.INFO)(state)


_AGAIN = tenacity.Retrying(
    retry=tenacity.retry_if_exception(_is_transient),
    stop=tenacity.stop_after_attempt(_ATTEMPTS),
    wait=tenacity.wait_random_exponential(multiplier=0.02, max=_LONGEST_PAUSE),
    before_sleep=_told,
    reraise=True,
)
