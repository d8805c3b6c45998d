"""Where a server of a test runs: on this machine, or on a host of a network that the test has made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Place(NamedTuple):
    """``address``: where others reach the server. ``enter``: lets the calling thread run on that host."""

    address: str = "127.0.0.1"
    enter: Callable[[], None] | None = None

    def run(self, start: Callable[[], T]) -> T:
        """Call ``start`` there. A process that it starts runs there, too."""
        if self.enter is None:
            return start()
        with ThreadPoolExecutor(1, initializer=self.enter) as thread:
            return thread.submit(start).result()
