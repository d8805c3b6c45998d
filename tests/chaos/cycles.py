"""One claim from its request to its end. A client repeats each call with the same id until it is answered."""

import time
from dataclasses import dataclass, field
from math import inf
from uuid import UUID

from portclaim.common.errors import ClaimNotFound
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from tests.chaos.calls import Calls
from tests.chaos.guests import Guests

KINDS = ("pf", "vf")
BRIEFLY = 2  # seconds that an impatient claim waits
_ORDER = ("waiting", "claimed", "prepared", "allocated", "releasing", "released")


@dataclass
class Cycle:
    """One claim, call by call.

    ``phase``: ``guest`` or ``claim`` at first; the guest may come before the claim or after it.
    ``waits_for_attach``: the client releases the claim only after the guest has the devices. ``moves``: how
    often the claim is still to be moved. ``live_moves``: how many live moves of it have begun. ``devices``:
    the devices in the answers to the client; none while the claim waits. ``wrong``: the faults in these
    answers. ``looks``: how often the client looks at a claim that waits before it gives up; None: it does
    not. ``first_called``: when the claim was first asked for. ``answered``: when an answer first had devices.
    ``may_end_from``: when a call was first made that may end the claim. ``ended_by``: when it had ended.
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
    looks: int | None = None
    first_called: float | None = None
    answered: float | None = None
    may_end_from: float = inf
    ended_by: float | None = None

    @property
    def claim_id(self) -> UUID:
        return self.request.claim_id

    @property
    def may_expire(self) -> bool:
        """May it wait so briefly that its time is over before it is served?"""
        return self.request.wait is not None and self.request.wait <= BRIEFLY

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

    def advance(self, scheduler: Calls, guests: Guests) -> bool:
        """Make one call; return whether the cycle has advanced. The last phase is ``over``.

        In the phase ``move`` the caller moves the claim, or sets the phase ``release``.
        """
        match self.phase:
            case "guest":
                self.define(guests)
                self.phase = "attach" if self.devices else "claim"
            case "claim":
                self.begin()
                self._follow(self.note(scheduler.claim(self.request)), guests)
            case "wait":
                if self.looks == 0:
                    self.phase = "release"
                    return True
                now = self.note(scheduler.show(self.claim_id))
                self.looks = None if self.looks is None else self.looks - 1
                self._follow(now, guests)
                return now != "waiting"
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
                self._end(guests)
        return True

    def _follow(self, now: str, guests: Guests) -> None:
        """The claim has this status before the client waits for the attach."""
        if now == "waiting":
            self.phase = "wait"
        elif now == "expired":
            self._end(guests)
        elif self.waits_for_attach:
            self.phase = "attach" if self.has_guest else "guest"
        else:
            self.phase = "release"

    def _end(self, guests: Guests) -> None:
        if self.has_guest:
            guests.undefine(self.host, self.request.instance_id)
        self.phase = "over"

    def begin(self) -> None:
        """The claim is asked for, for the first time or again."""
        if self.first_called is None:
            self.first_called = time.monotonic()

    def define(self, guests: Guests, *, arriving: bool = False) -> None:
        """The guest comes to the host."""
        self.has_guest = True
        guests.define(self.host, self.request.instance_id, arriving=arriving)

    def note(self, claim: Claim) -> str:
        """Compare an answer with those before it; return the status in it."""
        devices = frozenset(f"{claim.host} {device.address}" for device in claim.devices)
        if self.devices and devices != self.devices:
            self.wrong.append(f"claim {claim.claim_id} has {set(devices)} but had {set(self.devices)} before")
        if devices and not self.devices:
            self.answered = time.monotonic()
        if claim.status in {"released", "failed"} and self.ended_by is None:
            self.ended_by = time.monotonic()
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
        if status == "expired":
            return self.may_expire and before in {None, "waiting"}
        if status not in _ORDER or before in {"failed", "expired"}:
            return False
        is_unplugged = self.live_moves > 0 and (before, status) == ("allocated", "prepared")
        return before is None or is_unplugged or _ORDER.index(before) < _ORDER.index(status)

    def _release(self, scheduler: Calls) -> None:
        self.release_began = min(self.release_began, time.monotonic())
        self.may_end_from = min(self.may_end_from, self.release_began)
        try:
            self.note(scheduler.release(self.claim_id))
        except ClaimNotFound:
            if not self.may_be_missing or self.statuses:
                raise
            self.phase = "over"
        else:
            self.released_by = time.monotonic()
            self.phase = "end"
