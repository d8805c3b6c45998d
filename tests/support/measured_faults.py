"""What a fault of a server costs callers: how soon they are answered during the fault, and after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.caller import Callers

PROPERTY = "fault"
"""The name under which the report of a test has its faults. `make chaos-ha` makes its table of them."""


class MeasuredFault:
    """``during_s``: seconds from the beginning of the fault until all callers were answered, while it lasts.

    None: it does not last, or nobody can be answered meanwhile. ``after_s``: seconds from its end until all
    callers were answered. ``failed``: how many calls failed with a clear error.
    """

    def __init__(self, name: str, callers: Callers) -> None:
        self.name = name
        self.during_s: float | None = None
        self.after_s: float | None = None
        self.failed = -callers.failed
        self._callers = callers
        self._began = time.monotonic()

    def is_survived(self) -> None:
        """The fault goes on, and all callers are answered."""
        self._callers.wait_for_answers()
        self.during_s = time.monotonic() - self._began

    def is_over(self) -> None:
        """The fault has ended, and all callers are answered."""
        self.after_s = self._callers.wait_for_answers()
        self.failed += self._callers.failed

    def as_facts(self) -> dict[str, object]:
        return {
            "fault": self.name,
            "failed": self.failed,
            "during_s": self.during_s,
            "after_s": self.after_s,
        }


class MeasuredFaults:
    """The faults of one test. ``record``: keeps a property of its report."""

    def __init__(self, callers: Callers, record: Callable[[str, object], None]) -> None:
        self._callers = callers
        self._record = record

    @contextmanager
    def __call__(self, name: str) -> Iterator[MeasuredFault]:
        """A fault that ends with the block. The callers are answered before it and after it."""
        self._callers.wait_for_answers()
        fault = MeasuredFault(name, self._callers)
        yield fault
        fault.is_over()
        self._record(PROPERTY, fault.as_facts())
