"""A campaign injects one fault after another into a site under load, and checks everything after each."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from random import Random
from statistics import median

from tests.chaos.clients import Client, Goal, Load
from tests.chaos.cycles import KINDS, Cycle
from tests.chaos.deck import SHARES
from tests.chaos.faults import Fault, KillAgent
from tests.chaos.history import unexplained
from tests.chaos.network_faults import CutNetwork
from tests.chaos.operators import Operator
from tests.chaos.server_faults import BlockPublishers, EmptyRabbitMQ, ForgetName, RestartRabbitMQ
from tests.chaos.site import APIS, Site
from tests.chaos.verdict import Verdict

PATIENCE = 60.0  # seconds until recovery counts as failed
_AT_ONCE = 4  # brief faults
_CUTS_AT_ONCE = 3
# Not while a network is cut. The agents there would find a new broker only after the cut.
_ALONE = {CutNetwork, RestartRabbitMQ, EmptyRabbitMQ, BlockPublishers, ForgetName}


@dataclass
class Row:
    """All faults of one kind. ``recoveries``: the seconds until recovery from each."""

    fault: str
    injected: int = 0
    in_flight: int = 0
    moves: int = 0
    failed: int = 0
    wrong: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    skipped: str | None = None

    def as_facts(self) -> dict[str, object]:
        return {
            "fault": self.fault,
            "injected": self.injected,
            "requests_in_flight": self.in_flight,
            "moves_in_flight": self.moves,
            "failed_with_a_clear_error": self.failed,
            "wrong": self.wrong,
            "median_recovery_s": round(median(self.recoveries), 2) if self.recoveries else None,
            "worst_recovery_s": round(max(self.recoveries), 2) if self.recoveries else None,
            "skipped": self.skipped,
        }


@dataclass
class Injected:
    """One fault, and the counters when it began."""

    fault: Fault
    row: Row
    until: float
    failed_before: int
    wrong_before: int
    goal: Goal | None = None


class Campaign:
    """Injects the given faults. ``seconds``: how long network cuts last, if not the default."""

    def __init__(
        self, site: Site, deck: Sequence[type[Fault]], random: Random, clients: int, cut_seconds: float
    ) -> None:
        self._site = site
        self._random = random
        self._cut_seconds = cut_seconds
        self.load = Load(site.guests, site.cut)
        scheduler = site.client()
        ways = cycle([scheduler, *(site.http_client(api) for api in APIS)])  # by RPC and by HTTP
        self._clients = [
            Client(f"client {n}", next(ways), self.load, site.hosts, f"{random.random()}")
            for n in range(clients)
        ]
        self._operator = Operator(site, self.load, Random(random.random()))
        self.rows = {kind: Row(kind.name, skipped=kind.why_not(site)) for kind in SHARES if kind in deck}
        self._deck = [kind for kind in deck if self.rows[kind].skipped is None]
        self._standing: list[Injected] = []
        self.ended: list[Cycle] = []
        self.broken: str | None = None

    @property
    def injected(self) -> int:
        return sum(row.injected for row in self.rows.values())

    @property
    def wrong(self) -> list[str]:
        found = [wrong for row in self.rows.values() for wrong in row.wrong]
        return list(dict.fromkeys([*found, *([self.broken] if self.broken else [])]))

    def run(self, deadline: float, tell: Callable[[str], None]) -> None:
        """Run until all faults were injected, the time is over, or the site does not recover.

        ``tell`` is called after each recovery.
        """
        self._tell = tell
        self._verdict = Verdict(self._site)
        for client in self._clients:
            client.start()
        self._operator.start()
        self.load.goals.append(Goal(time.monotonic(), self._site.hosts))
        self._recover()
        while self._deck and time.monotonic() < deadline and self.broken is None:
            self._next()
        self._heal_standing()
        self._operator.end(at_once=self.broken is not None)
        for client in self._clients:
            client.end(at_once=self.broken is not None)
        self.ended += self.load.over
        self.load.wrong += unexplained(self.ended, self._verdict.parents)

    def _next(self) -> None:
        if self._standing and time.monotonic() >= max(each.until for each in self._standing):
            self._heal_standing()
            return
        kind = self._deck.pop()
        if self._standing and kind in _ALONE:
            if {*self._deck} <= _ALONE:  # there is nothing else to do meanwhile
                self._heal_standing()
            else:
                self._deck.insert(0, kind)
                return
        time.sleep(self._random.uniform(0.0, 1.0))  # so that the fault can hit at any moment
        if kind is CutNetwork:
            self._cut()
            return
        faults = [self._build(kind)]
        for _ in range(self._random.randint(1, _AT_ONCE) - 1 if faults[0].is_brief else 0):
            other = self._companion(faults)
            if other is None:
                break
            faults.append(other)
        self._strike(sorted(faults, key=lambda fault: fault.seconds))

    def _build(self, kind: type[Fault]) -> Fault:
        return kind(self._site, self._random, [h for h in self._site.hosts if h not in self._site.cut])

    def _companion(self, faults: Sequence[Fault]) -> Fault | None:
        """Another brief fault, of another kind or of another agent."""
        kinds = {type(fault) for fault in faults}
        targets = {fault.target for fault in faults}
        hosts = [host for host in self._site.hosts if host not in self._site.cut | targets]
        for number in reversed(range(len(self._deck))):
            kind = self._deck[number]
            if kind.is_brief and hosts and (kind not in kinds or (kind is KillAgent and len(hosts) > 1)):
                other = kind(self._site, self._random, hosts)
                if other.target == "all" or other.target not in targets:
                    del self._deck[number]
                    return other
        return None

    def _begin(self, fault: Fault, seconds: float) -> Injected:
        row = self.rows[type(fault)]
        row.injected += 1
        row.in_flight += self.load.in_flight
        row.moves += self.load.moving
        before = self.load.failed, len(self.load.wrong)
        fault.inject()
        return Injected(fault, row, time.monotonic() + seconds, *before)

    def _strike(self, faults: Sequence[Fault]) -> None:
        struck = {fault.target for fault in faults}
        begun = [self._begin(fault, fault.seconds) for fault in faults]
        for each in begun:
            time.sleep(max(0.0, each.until - time.monotonic()))
            each.fault.heal()
            hosts = each.fault.hosts
            elsewhere = [host for host in hosts if host not in struck | self._site.cut]
            self._await(each, hosts if each.fault.target in hosts else elsewhere or hosts)
        self._conclude(begun)

    def _cut(self) -> None:
        cuts = [self._build(CutNetwork)]
        while CutNetwork in self._deck and len(cuts) < min(_CUTS_AT_ONCE, len(self._site.hosts) - 1):
            self._deck.remove(CutNetwork)
            struck = {cut.target for cut in cuts}
            cuts.append(
                CutNetwork(self._site, self._random, [h for h in self._site.hosts if h not in struck])
            )
        for cut in cuts:
            self._standing.append(self._begin(cut, self._cut_seconds))
            with self.load.lock:
                self._site.cut.add(cut.target)

    def _heal_standing(self) -> None:
        standing, self._standing = self._standing, []
        for each in standing:
            if self.broken is None:
                time.sleep(max(0.0, each.until - time.monotonic()))
            each.fault.heal()
        with self.load.change:
            self._site.cut.clear()
            self.load.change.notify_all()
        for each in standing:
            self._await(each, each.fault.hosts)
        if standing:
            self._conclude(standing)

    def _await(self, injected: Injected, hosts: Sequence[str]) -> None:
        """Set the recovery from a fault that has ended as a goal of the clients."""
        injected.goal = Goal(time.monotonic(), hosts)
        with self.load.lock:
            self.load.goals.append(injected.goal)

    def _conclude(self, faults: Sequence[Injected]) -> None:
        """Wait for recovery, then judge."""
        began = time.monotonic()
        self._recover()
        recovered = time.monotonic()
        wrong = self._judge() + self.load.wrong[min(each.wrong_before for each in faults) :]
        wrong += [what for each in faults for what in each.fault.wrong]
        judged = time.monotonic()
        if self.broken is not None:
            wrong.append(self.broken)
        for each in faults:
            each.row.failed += self.load.failed - each.failed_before
            each.row.wrong += wrong
            if each.goal is not None and len(each.goal.reached) == len(self._clients) * len(KINDS):
                each.row.recoveries.append(max(each.goal.reached.values()))
        self._tell(
            f"{', '.join(f'{each.row.fault} ({each.fault.target})' for each in faults)}: recovered in "
            f"{recovered - began:.1f} s, judged in {judged - recovered:.1f} s, {len(wrong)} wrong"
        )

    def _recover(self) -> None:
        load, all_of_them = self.load, len(self._clients) * len(KINDS)
        with load.lock:
            if not load.progress.wait_for(
                lambda: all(len(goal.reached) == all_of_them for goal in load.goals), PATIENCE
            ):
                missed = {c.name: goal.misses(c.name) for goal in load.goals for c in self._clients}
                self.broken = f"not recovered in {PATIENCE} s: {missed}"
            load.goals = []

    def _judge(self) -> list[str]:
        """Pause all clients and the operator, and check everything."""
        load = self.load
        with load.change:
            load.is_held = True
            workers = [self._operator, *self._clients]
            if not load.progress.wait_for(lambda: all(worker.is_idle for worker in workers), PATIENCE):
                self.broken = self.broken or f"in {PATIENCE} s not all claims came to their end"
            over, load.over = load.over, []
            self.ended += over
            moved, load.moved = load.moved, []
            aside = [cycle for client in self._clients for cycle in client.aside]
        try:
            if self.broken:
                return []
            return [
                *self._operator.check(over),
                *self._verdict.check(over, aside, moved),
            ]
        finally:
            with load.change:
                load.is_held = False
                load.change.notify_all()
