"""Clients that claim, wait for the attach, release and wait for the end. They repeat calls with one id.

Some claims are only prepared until the client asks for the attach, and some are moved to another host.
"""

import threading
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from portclaim.common.errors import ClaimRefused, ServiceUnavailable
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.common.rpc.scheduler import SchedulerClient
from tests.chaos.cycles import KINDS, Cycle
from tests.chaos.guests import Guests
from tests.chaos.moves import Moving

_PAUSE = 0.05  # seconds between two polls


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
    """The state and the counters shared by all clients.

    ``unreachable``: hosts that clients must not use. ``over`` and ``moved``: what has ended since the last
    check. ``moves``: how many moves have ended, by kind and fate.
    """

    def __init__(self, guests: Guests, unreachable: Collection[str]) -> None:
        self.guests = guests
        self.unreachable = unreachable
        self.goals: list[Goal] = []
        self.in_flight = 0
        self.calls = 0
        self.failed = 0  # with a clear error
        self.refused = 0
        self.longest = 0.0  # seconds of a call
        self.wrong: list[str] = []
        self.over: list[Cycle] = []
        self.moved: list[Moving] = []
        self.moving = 0
        self.moves: Counter[str] = Counter()
        self.is_held = False
        self.lock = threading.Lock()
        self.change = threading.Condition(self.lock)  # tells clients that their work has changed
        self.progress = threading.Condition(self.lock)  # tells the campaign that clients have advanced


class Client(threading.Thread):
    """Works on one cycle or move. ``aside``: its other cycles, most of them on unreachable hosts."""

    def __init__(
        self, name: str, scheduler: SchedulerClient, load: Load, hosts: Collection[str], seed: str
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.aside: list[Cycle] = []
        self._scheduler = scheduler
        self._load = load
        self._hosts = sorted(hosts)
        self._random = Random(seed)
        self._in_hand: Cycle | Moving | None = None
        self._is_ending = self._is_ending_at_once = False

    @property
    def is_idle(self) -> bool:
        """Is there no cycle on which the client could work?"""
        return self._in_hand is None and not self._reachable()

    def end(self, at_once: bool = False) -> None:
        """Begin no further cycle, and wait for the end of the thread.

        ``at_once``: do not finish the open cycles, because some of them do not come to their end.
        """
        with self._load.change:
            self._is_ending = True
            self._is_ending_at_once = at_once
            self._load.change.notify_all()
        self.join()

    def run(self) -> None:
        try:
            while (work := self._next()) is not None:
                if not self._call(work):
                    time.sleep(_PAUSE * self._random.uniform(0.5, 1.5))
        except Exception as error:
            with self._load.lock:
                self._load.wrong.append(f"{self.name} failed: {error!r}")
            raise

    def _next(self) -> Cycle | Moving | None:
        """What to work on; None at the end. Waits while clients are paused and no cycle is open."""
        with self._load.change:
            if self._in_hand is not None and not self._load.unreachable.isdisjoint(self._in_hand.needs):
                self._set_aside(self._in_hand)
            if self._is_ending_at_once:
                return None
            while self._in_hand is None:
                if reachable := self._reachable():
                    self._in_hand = reachable[0]
                    self.aside.remove(reachable[0])
                elif self._is_ending:
                    return None
                elif self._load.is_held:
                    self._load.change.wait()
                else:
                    self._in_hand = self._new_cycle()
            if isinstance(self._in_hand, Cycle) and self._in_hand.phase == "move":
                self._in_hand = self._begin_move(self._in_hand)
            return self._in_hand

    def _set_aside(self, work: Cycle | Moving) -> None:
        self.aside += work.divide()
        self._in_hand = None
        if isinstance(work, Moving):
            self._load.moving -= 1
            self._load.moved.append(work)
            self._load.moves[f"{work.kind} {work.fate}"] += 1
        self._load.progress.notify_all()

    def _reachable(self) -> list[Cycle]:
        return [cycle for cycle in self.aside if cycle.host not in self._load.unreachable]

    def _begin_move(self, cycle: Cycle) -> Cycle | Moving:
        """Move the claim to a host that can be reached and has no other claim of the same instance."""
        taken = {cycle.host, *self._load.unreachable, *(each.host for each in self.aside)}
        hosts = [host for host in self._hosts if host not in taken]
        if not hosts or self._load.is_held or self._is_ending:
            cycle.phase = "release"
            return cycle
        self._load.moving += 1
        return Moving.of(cycle, self._random.choice(hosts), self._random)

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
        waits = bool(wanted) or self._random.random() < 0.8
        moves = 0 if wanted else self._random.choice([0, 1, 1, 2])
        return Cycle(kind, host, request, waits, self._random.choice(["guest", "claim"]), moves)

    def _call(self, work: Cycle | Moving) -> bool:
        """Make one call of the cycle or move; return whether it has advanced."""
        load, began = self._load, time.monotonic()
        failure: Exception | None = None
        with load.lock:
            load.in_flight += 1
        phase = work.phase
        try:
            has_advanced = work.advance(self._scheduler, load.guests)
        except Exception as error:
            failure, has_advanced = error, False
        with load.lock:
            load.in_flight -= 1
            load.calls += 1
            load.longest = max(load.longest, time.monotonic() - began)
            load.wrong += [wrong for wrong in work.wrong if wrong not in load.wrong]
            if isinstance(failure, ClaimRefused):
                load.refused += 1
            elif isinstance(failure, ServiceUnavailable):
                load.failed += 1
            elif failure is not None:
                load.wrong.append(f"{phase} of claim {work.claim_id}: {failure!r}")
            if work.is_over:
                self._end(work)
        return has_advanced

    def _end(self, work: Cycle | Moving) -> None:
        if isinstance(work, Moving):
            self._set_aside(work)
            return
        self._in_hand = None
        if work.statuses:  # the claim was made
            self._load.over.append(work)
        for goal in self._load.goals:
            goal.note(self.name, work)
        self._load.progress.notify_all()
