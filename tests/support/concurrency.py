"""Concurrent calls and waiting, without guessed delays."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import sqlalchemy as sa

T = TypeVar("T")

LONG = 30.0  # seconds after which an expected event counts as missing


def at_once(calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Start all calls at the same moment, each in a thread. Return their answers or exceptions, in order."""
    together = Barrier(len(calls))

    def one(call: Callable[[], T]) -> T | Exception:
        together.wait(LONG)
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(one, calls))


def meanwhile(call: Callable[[], T]) -> Future[T]:
    """Start one call in a thread of its own; ``result()`` waits for it."""
    threads = ThreadPoolExecutor(1)
    future = threads.submit(call)
    threads.shutdown(wait=False)
    return future


def wait_until(happened: Callable[[], Any], what: str, patience: float = LONG) -> None:
    """Poll until something has happened. Fails after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < deadline, f"after {patience} s still not: {what}"
        time.sleep(0.01)


def wait_until_blocked(engine: sa.Engine, sessions: int = 1) -> None:
    """Wait until this many sessions of this database wait for a lock."""
    blocked = sa.text("""
        SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'
    """)

    def count() -> int:
        with engine.connect() as connection:
            return int(connection.scalar(blocked) or 0)

    wait_until(lambda: count() >= sessions, f"{sessions} sessions wait for a lock")


def wait_until_listening(engine: sa.Engine, channel: str) -> None:
    """Wait until an idle session of this database listens to a channel."""
    listening = sa.text("""
        SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND query = 'LISTEN ' || :channel AND state = 'idle'
    """)

    def count() -> int:
        with engine.connect() as connection:
            return int(connection.scalar(listening, {"channel": channel}) or 0)

    wait_until(count, f"a session listens to {channel}")
