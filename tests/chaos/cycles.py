"""One claim from its request to its end. A client repeats each call with the same id until it is answered."""

import time
from dataclasses import dataclass, field
from math import inf
from uuid import UUID

from portclaim.common.errors import ClaimNotFound
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.scheduler import SchedulerClient
from tests.chaos.guests import Guests

KINDS = ("pf", "vf")
_ORDER = ("claimed", "prepared", "allocated", "releasing", "released")


@dataclass
class Cycle:
    """One claim, call by call.

    ``phase``: ``guest`` or ``claim`` at first; the guest may come before the claim or after it.
    ``waits_for_attach``: the client releases the claim only after the guest has the devices. ``moves``: how
    often the claim is still to be moved. ``live_moves``: how many live moves of it have begun. ``devices``:
    the devices in the answers to the client. ``wrong``: the faults in these answers.
    """

    kind: str
    host: str
    request: ClaimRequest
    waits_for_attach: bool
    phase: str = "claim"
    moves: int = 0
    live_moves: int = 0
    began: float = field(default_factory=time.monotonic)
    may_be_missing: bool = False  # the call that makes the claim may never have been served
    may_fail: bool = False  # its migration is aborted
    has_guest: bool = False
    release_began: float = inf  # when it was called for, and when it was answered
    released_by: float = inf
    devices: frozenset[str] | None = None
    statuses: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def claim_id(self) -> UUID:
        return self.request.claim_id

    @property
    def needs(self) -> set[str]:
        """The hosts that must be reachable for the next call."""
        return {self.host}

    @property
    def is_over(self) -> bool:
        return self.phase == "over"

    def divide(self) -> list["Cycle"]:
        """What to set aside while the host cannot be reached."""
        return [self]

    def advance(self, scheduler: SchedulerClient, guests: Guests) -> bool:
        """Make one call; return whether the cycle has advanced. The last phase is ``over``.

        In the phase ``move`` the caller moves the claim, or sets the phase ``release``.
        """
        match self.phase:
            case "guest":
                self.define(guests)
                self.phase = "claim" if self.devices is None else "attach"
            case "claim":
                self.note(scheduler.claim(self.request))
                self.phase = "attach" if self.has_guest else "guest"
                if not self.waits_for_attach:
                    self.phase = "release"
            case "attach":
                now = self.note(scheduler.show(self.claim_id))
                if now == "prepared" and self.request.attach == "on-call":
                    now = self.note(scheduler.attach(self.claim_id))
                if now in {"claimed", "prepared"}:
                    return False
                self.phase = "move" if self.moves and now == "allocated" else "release"
            case "release":
                self._release(scheduler)
            case "end":
                if self.note(scheduler.show(self.claim_id)) == "releasing":
                    return False
                if self.has_guest:
                    guests.undefine(self.host, self.request.instance_id)
                self.phase = "over"
        return True

    def define(self, guests: Guests, *, arriving: bool = False) -> None:
        """The guest comes to the host."""
        self.has_guest = True
        guests.define(self.host, self.request.instance_id, arriving=arriving)

    def note(self, claim: Claim) -> str:
        """Compare an answer with those before it; return the status in it."""
        devices = frozenset(f"{claim.host} {device.address}" for device in claim.devices)
        if self.devices is not None and devices != self.devices:
            self.wrong.append(f"claim {claim.claim_id} has {set(devices)} but had {set(self.devices)} before")
        self.devices = devices
        before = self.statuses[-1] if self.statuses else None
        if claim.status != before:
            self.statuses.append(claim.status)
            if not self._may_become(before, claim.status):
                self.wrong.append(f"claim {claim.claim_id} had the statuses {self.statuses}")
        return claim.status

    def _may_become(self, before: str | None, status: str) -> bool:
        """May a claim have this status now? A client does not see every status."""
        if status == "failed":
            return self.may_fail and before in {"claimed", "prepared"}
        if status not in _ORDER or before == "failed":
            return False
        is_unplugged = self.live_moves > 0 and (before, status) == ("allocated", "prepared")
        return before is None or is_unplugged or _ORDER.index(before) < _ORDER.index(status)

    def _release(self, scheduler: SchedulerClient) -> None:
        self.release_began = min(self.release_began, time.monotonic())
        try:
            self.note(scheduler.release(self.claim_id))
        except ClaimNotFound:
            if not self.may_be_missing or self.statuses:
                raise
            self.phase = "over"
        else:
            self.released_by = time.monotonic()
            self.phase = "end"
