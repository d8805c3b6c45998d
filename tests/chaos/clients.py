"""Clients that claim, wait for the attach, release and wait for the end. They repeat calls with one id.

Some claims are only prepared until the client asks for the attach, and some are moved to another host.
"""

import threading
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from portclaim.cli.http_client import HttpScheduler
from portclaim.common.errors import ClaimRefused, ServiceUnavailable
from portclaim.common.rpc.claim_messages import ClaimRequest
from tests.chaos.batches import Batch
from tests.chaos.calls import Calls
from tests.chaos.cycles import BRIEFLY, KINDS, Cycle
from tests.chaos.guests import Guests
from tests.chaos.moves import Moving
from tests.chaos.site import PORTS

Work = Cycle | Moving | Batch

_PAUSE = 0.05  # seconds between two polls
_WAITING, _BATCHES = 0.3, 0.15  # so many of all claims that serve no goal
_LONG = 600  # seconds that a patient claim waits


@dataclass
class Goal:
    """Recovery from one fault: every client has finished a cycle of each kind that began after ``since`` on
    one of ``hosts``. ``reached``: the seconds that each client and kind took."""

    since: float
    hosts: Collection[str]
    reached: dict[tuple[str, str], float] = field(default_factory=dict)

    def note(self, client: str, cycle: Cycle) -> None:
        if (
            cycle.kind in KINDS
            and cycle.began >= self.since
            and cycle.host in self.hosts
            and cycle.waits_for_attach
        ):
            self.reached.setdefault((client, cycle.kind), time.monotonic() - self.since)

    def misses(self, client: str) -> list[str]:
        """The kinds of which this client has not finished a cycle yet."""
        return [kind for kind in KINDS if (client, kind) not in self.reached]


class Load:
    """The state and the counters shared by all clients.

    ``unreachable``: hosts that clients must not use. ``over`` and ``moved``: what has ended since the last
    check. ``moves``: how many moves have ended, by kind and fate. ``done``: how much else was done.
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
        self.done: Counter[str] = Counter()
        self.is_held = False
        self.lock = threading.Lock()
        self.change = threading.Condition(self.lock)  # tells clients that their work has changed
        self.progress = threading.Condition(self.lock)  # tells the campaign that clients have advanced


class Client(threading.Thread):
    """Works on one cycle or move. ``aside``: its other cycles, most of them on unreachable hosts."""

    def __init__(self, name: str, scheduler: Calls, load: Load, hosts: Collection[str], seed: str) -> None:
        super().__init__(name=name, daemon=True)
        self.aside: list[Cycle] = []
        self._scheduler = scheduler
        self._load = load
        self._hosts = sorted(hosts)
        self._random = Random(seed)
        self._in_hand: Work | None = None
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

    def _next(self) -> Work | None:
        """What to work on; None at the end. Waits while clients are paused and no cycle is open."""
        with self._load.change:
            if self._in_hand is not None and not self._load.unreachable.isdisjoint(self._in_hand.needs):
                self._set_aside(self._in_hand)
            if self._is_ending_at_once:
                return None
            is_hopeful = isinstance(self._in_hand, Cycle) and self._in_hand.phase in {"claim", "wait"}
            if self._in_hand is not None and is_hopeful and self._reachable():
                self._set_aside(self._in_hand)  # one of these may have the devices that it needs
            while self._in_hand is None:
                if reachable := self._reachable():
                    self._in_hand = reachable[0]
                    self.aside.remove(reachable[0])
                elif self._is_ending:
                    return None
                elif self._load.is_held:
                    self._load.change.wait()
                else:
                    self._in_hand = self._new_work()
            if isinstance(self._in_hand, Cycle) and self._in_hand.phase == "move":
                self._in_hand = self._begin_move(self._in_hand)
            return self._in_hand

    def _set_aside(self, work: Work) -> None:
        self.aside += work.divide()
        self._in_hand = None
        if isinstance(work, Moving):
            self._load.moving -= 1
            self._load.moved.append(work)
            self._load.moves[f"{work.kind} {work.fate}"] += 1
        elif isinstance(work, Batch):
            self._load.done["claims made together"] += sum(bool(cycle.statuses) for cycle in work.cycles)
        self._load.progress.notify_all()

    def _reachable(self) -> list[Cycle]:
        return [cycle for cycle in self.aside if cycle.host not in self._load.unreachable]

    def _begin_move(self, cycle: Cycle) -> Work:
        """Move the claim to a host that can be reached and has no other claim of the same instance."""
        taken = {cycle.host, *self._load.unreachable, *(each.host for each in self.aside)}
        hosts = [host for host in self._hosts if host not in taken]
        if not hosts or self._load.is_held or self._is_ending:
            cycle.phase = "release"
            return cycle
        self._load.moving += 1
        return Moving.of(cycle, self._random.choice(hosts), self._random)

    def _new_work(self) -> Work:
        """What a goal needs, or else anything."""
        wanted = [(kind, goal.hosts) for goal in self._load.goals for kind in goal.misses(self.name)]
        kind, hosts = self._random.choice(wanted) if wanted else (self._random.choice(KINDS), self._hosts)
        host = self._random.choice([host for host in sorted(hosts) if host not in self._load.unreachable])
        chance = 1.0 if wanted else self._random.random()
        if chance < _WAITING:
            return self._waiting_cycle(host)
        if chance < _WAITING + _BATCHES:
            return self._batch(host)
        request = self._request(f"{kind}:1", host, attach=self._random.choice(["auto", "auto", "on-call"]))
        waits = bool(wanted) or self._random.random() < 0.8
        moves = 0 if wanted else self._random.choice([0, 1, 1, 2])
        return Cycle(kind, host, request, waits, self._random.choice(["guest", "claim"]), moves)

    def _waiting_cycle(self, host: str) -> Cycle:
        """A claim of most of a host's ports. Two of them do not fit, so one must wait.

        Most of them are on one of two hosts. Some clients give up, and some claims wait only briefly.
        """
        reachable = [each for each in self._hosts if each not in self._load.unreachable]
        host = self._random.choice([host, *reachable[:2], *reachable[:2]])
        wait = self._random.choice([BRIEFLY, _LONG, _LONG])
        request = self._request(f"pf:{PORTS - 1}", host, wait=wait)
        looks = self._random.choice([None, None, 0, 3]) if wait == _LONG else None
        waits = self._random.random() < 0.8
        return Cycle("most ports", host, request, waits, self._random.choice(["guest", "claim"]), looks=looks)

    def _batch(self, host: str) -> Batch:
        requests = [self._request("vf:1", host) for _ in range(self._random.randint(2, 4))]
        cycles = [Cycle("vf", host, request, waits_for_attach=False) for request in requests]
        return Batch(cycles, waits_for_attach=self._random.random() < 0.8)

    def _request(self, alias_spec: str, host: str, **more: Any) -> ClaimRequest:
        return ClaimRequest(
            claim_id=UUID(int=self._random.getrandbits(128)),
            instance_id=UUID(int=self._random.getrandbits(128)),
            extra_specs={"pci_passthrough:alias": alias_spec},
            hosts=[host],
            **more,
        )

    def _call(self, work: Work) -> bool:
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

    def _end(self, work: Work) -> None:
        if not isinstance(work, Cycle):
            self._set_aside(work)
            return
        self._in_hand = None
        self._load.done[f"{'HTTP' if isinstance(self._scheduler, HttpScheduler) else 'RPC'} claims"] += 1
        if "waiting" in work.statuses:
            self._load.done[f"waited, then {work.statuses[1] if len(work.statuses) > 1 else 'lost'}"] += 1
        if work.statuses:  # the claim was made
            self._load.over.append(work)
        for goal in self._load.goals:
            goal.note(self.name, work)
        self._load.progress.notify_all()
