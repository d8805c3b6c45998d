"""Clients that claim, wait for the attach, release and wait for the end. They repeat calls with one id.

Some claims are only prepared until the client asks for the attach.
"""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from portclaim.common.errors import ClaimRefused, ServiceUnavailable
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.scheduler import SchedulerClient

KINDS = ("pf", "vf")
_PAUSE = 0.05  # seconds between two polls
_ORDER = ("claimed", "prepared", "allocated", "releasing", "released")


@dataclass
class Cycle:
    """One claim from its request to its end, call by call.

    ``devices``: the devices in the answers to the client. ``wrong``: the faults in these answers.
    """

    kind: str
    host: str
    request: ClaimRequest
    waits_for_attach: bool
    began: float = field(default_factory=time.monotonic)
    phase: str = "claim"
    devices: frozenset[str] | None = None
    statuses: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def claim_id(self) -> UUID:
        return self.request.claim_id

    def advance(self, scheduler: SchedulerClient) -> bool:
        """Make one call; return whether the cycle has advanced. The last phase is ``over``."""
        match self.phase:
            case "claim":
                self._note(scheduler.claim(self.request))
                self.phase = "attach" if self.waits_for_attach else "release"
            case "attach":
                now = self._note(scheduler.show(self.claim_id))
                if now == "prepared":
                    now = self._note(scheduler.attach(self.claim_id))
                if now in {"claimed", "prepared"}:
                    return False
                self.phase = "release"
            case "release":
                self._note(scheduler.release(self.claim_id))
                self.phase = "end"
            case "end":
                if self._note(scheduler.show(self.claim_id)) == "releasing":
                    return False
                self.phase = "over"
        return True

    def _note(self, claim: Claim) -> str:
        devices = frozenset(f"{claim.host} {device.address}" for device in claim.devices)
        if self.devices is not None and devices != self.devices:
            self.wrong.append(f"claim {claim.claim_id} has {set(devices)} but had {set(self.devices)} before")
        self.devices = devices
        if not self.statuses or self.statuses[-1] != claim.status:
            self.statuses.append(claim.status)
            if self.statuses != [status for status in _ORDER if status in self.statuses]:
                self.wrong.append(f"claim {claim.claim_id} had the statuses {self.statuses}")
        return claim.status


@dataclass
class Goal:
    """Recovery from one fault: every client has finished a cycle of each kind that began after ``since`` on
    one of ``hosts``. ``reached``: the seconds that each client and kind took."""

    since: float
    hosts: Collection[str]
    reached: dict[tuple[str, str], float] = field(default_factory=dict)

    def note(self, client: str, cycle: Cycle) -> None:
        if cycle.began >= self.since and cycle.host in self.hosts and cycle.waits_for_attach:
            self.reached.setdefault((client, cycle.kind), time.monotonic() - self.since)

    def misses(self, client: str) -> list[str]:
        """The kinds of which this client has not finished a cycle yet."""
        return [kind for kind in KINDS if (client, kind) not in self.reached]


class Load:
    """The state and the counters shared by all clients. ``unreachable``: hosts that clients must not use."""

    def __init__(self, unreachable: Collection[str]) -> None:
        self.unreachable = unreachable
        self.goals: list[Goal] = []
        self.in_flight = 0
        self.calls = 0
        self.failed = 0  # with a clear error
        self.refused = 0
        self.longest = 0.0  # seconds of a call
        self.wrong: list[str] = []
        self.over: list[Cycle] = []
        self.is_held = False
        self.lock = threading.Lock()
        self.change = threading.Condition(self.lock)  # tells clients that their work has changed
        self.progress = threading.Condition(self.lock)  # tells the campaign that clients have advanced


class Client(threading.Thread):
    """Works on one cycle. ``aside``: its cycles on hosts that cannot be reached."""

    def __init__(
        self, name: str, scheduler: SchedulerClient, load: Load, hosts: Collection[str], seed: str
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.aside: list[Cycle] = []
        self._scheduler = scheduler
        self._load = load
        self._hosts = sorted(hosts)
        self._random = Random(seed)
        self._in_hand: Cycle | None = None
        self._is_ending = False

    @property
    def is_idle(self) -> bool:
        """Is there no cycle on which the client could work?"""
        return self._in_hand is None and not self._reachable()

    def end(self) -> None:
        """Begin no further cycle, and wait for the end of the thread."""
        with self._load.change:
            self._is_ending = True
            self._load.change.notify_all()
        self.join()

    def run(self) -> None:
        try:
            while (cycle := self._next()) is not None:
                if not self._call(cycle):
                    time.sleep(_PAUSE * self._random.uniform(0.5, 1.5))
        except Exception as error:
            with self._load.lock:
                self._load.wrong.append(f"{self.name} failed: {error!r}")
            raise

    def _next(self) -> Cycle | None:
        """The cycle to work on; None at the end. Waits while clients are paused and no cycle is open."""
        with self._load.change:
            if self._in_hand is not None and self._in_hand.host in self._load.unreachable:
                self.aside.append(self._in_hand)
                self._in_hand = None
                self._load.progress.notify_all()
            while self._in_hand is None:
                if self._is_ending:
                    return None
                if reachable := self._reachable():
                    self._in_hand = reachable[0]
                    self.aside.remove(reachable[0])
                elif self._load.is_held:
                    self._load.change.wait()
                else:
                    self._in_hand = self._new_cycle()
            return self._in_hand

    def _reachable(self) -> list[Cycle]:
        return [cycle for cycle in self.aside if cycle.host not in self._load.unreachable]

    def _new_cycle(self) -> Cycle:
        wanted = [(kind, goal.hosts) for goal in self._load.goals for kind in goal.misses(self.name)]
        kind, hosts = self._random.choice(wanted) if wanted else (self._random.choice(KINDS), self._hosts)
        host = self._random.choice([host for host in sorted(hosts) if host not in self._load.unreachable])
        request = ClaimRequest(
            claim_id=UUID(int=self._random.getrandbits(128)),
            instance_id=UUID(int=self._random.getrandbits(128)),
            extra_specs={"pci_passthrough:alias": f"{kind}:1"},
            hosts=[host],
            attach=self._random.choice(["auto", "auto", "on-call"]),
        )
        return Cycle(kind, host, request, waits_for_attach=bool(wanted) or self._random.random() < 0.8)

    def _call(self, cycle: Cycle) -> bool:
        """Make one call of the cycle; return whether the cycle has advanced."""
        load, began = self._load, time.monotonic()
        failure: Exception | None = None
        with load.lock:
            load.in_flight += 1
        try:
            has_advanced = cycle.advance(self._scheduler)
        except Exception as error:
            failure, has_advanced = error, False
        with load.lock:
            load.in_flight -= 1
            load.calls += 1
            load.longest = max(load.longest, time.monotonic() - began)
            load.wrong += [wrong for wrong in cycle.wrong if wrong not in load.wrong]
            if isinstance(failure, ClaimRefused):
                load.refused += 1
            elif isinstance(failure, ServiceUnavailable):
                load.failed += 1
            elif failure is not None:
                load.wrong.append(f"{cycle.phase} of claim {cycle.claim_id}: {failure!r}")
            if cycle.phase == "over":
                self._in_hand = None
                load.over.append(cycle)
                for goal in load.goals:
                    goal.note(self.name, cycle)
                load.progress.notify_all()
        return has_advanced
