"""Several claims that are made in one call, and released in one call."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from portclaim.common.errors import ClaimRefused, PortclaimError, ServiceUnavailable
from portclaim.common.rpc.claim_messages import Claim
from tests.chaos.calls import Calls
from tests.chaos.cycles import Cycle
from tests.chaos.guests import Guests


@dataclass
class Batch:
    """Claims on one host. ``phase``: ``claim``, ``guests``, ``attach``, ``release`` or ``over``.

    Claims that are refused are made one by one after the others have ended.
    """

    cycles: list[Cycle]
    waits_for_attach: bool
    phase: str = "claim"

    @property
    def claim_id(self) -> UUID:
        return self.cycles[0].claim_id

    @property
    def is_over(self) -> bool:
        return self.phase == "over"

    @property
    def needs(self) -> set[str]:
        """The hosts that must be reachable for the next call."""
        return {cycle.host for cycle in self.cycles}

    @property
    def wrong(self) -> list[str]:
        return [wrong for cycle in self.cycles for wrong in cycle.wrong]

    def divide(self) -> list[Cycle]:
        """The claims, to be continued one by one: first those that have devices."""
        for cycle in self._served():
            cycle.phase = "release" if cycle.phase == "claim" else cycle.phase
        return sorted(self.cycles, key=lambda cycle: not cycle.statuses)

    def advance(self, scheduler: Calls, guests: Guests) -> bool:
        """Make one call; return whether the batch has advanced."""
        match self.phase:
            case "claim":
                asked = [cycle for cycle in self.cycles if not cycle.statuses]
                for cycle in asked:
                    cycle.begin()
                _note(asked, scheduler.claim_many([cycle.request for cycle in asked]))
                self.phase = "guests" if self.waits_for_attach else "release"
            case "guests":
                for cycle in self._served():
                    cycle.define(guests)
                self.phase = "attach"
            case "attach":
                statuses = {cycle.note(scheduler.show(cycle.claim_id)) for cycle in self._served()}
                if statuses & {"claimed", "prepared"}:
                    return False
                self.phase = "release"
            case "release":
                asked = [cycle for cycle in self._served() if cycle.phase != "end"]
                for cycle in asked:
                    cycle.may_end_from = min(cycle.may_end_from, time.monotonic())
                if asked:
                    _note(asked, scheduler.release_many([cycle.claim_id for cycle in asked]))
                for cycle in asked:
                    cycle.phase = "end"
                self.phase = "over"
        return True

    def _served(self) -> list[Cycle]:
        return [cycle for cycle in self.cycles if cycle.statuses]


def _note(asked: Sequence[Cycle], outcomes: Sequence[Claim | PortclaimError]) -> None:
    """Note the claims. Raises the first error that is no refusal."""
    failures: list[PortclaimError] = []
    for cycle, outcome in zip(asked, outcomes, strict=True):
        if isinstance(outcome, Claim):
            cycle.note(outcome)
        elif not isinstance(outcome, ClaimRefused):
            failures.append(outcome)
    failures.sort(key=lambda failure: isinstance(failure, ServiceUnavailable))  # the worst first
    if failures:
        raise failures[0]
