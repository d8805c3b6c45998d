"""A conductor that counts the hosts all the time, while claims come and go."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

from tests.support.concurrency import meanwhile
from tests.support.fleet import Fleet


@contextmanager
def hosts_are_counted(fleet: Fleet) -> Iterator[None]:
    """Count changed hosts again and again until the end of the block."""
    is_over = Event()

    def count() -> None:
        while not is_over.is_set():
            fleet.count_hosts()

    counting = meanwhile(count)
    try:
        yield
    finally:
        is_over.set()
        counting.result()
