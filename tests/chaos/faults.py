"""The faults of a site. Each begins with ``inject`` and is over when ``heal`` returns."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Collection
from random import Random
from typing import ClassVar

from tests.chaos import privacy
from tests.chaos.site import TIMEOUT, Site
from tests.chaos.supervisor import Supervised


class Fault(ABC):
    """``hosts``: the hosts on which clients must recover. ``seconds``: from begin to end.

    ``target``: what the fault hits. Two faults at the same time have different targets.
    """

    name: ClassVar[str]
    seconds: ClassVar[float] = 0.0
    is_brief: ClassVar[bool] = False  # other faults may happen at the same time

    def __init__(self, site: Site, random: Random, hosts: Collection[str]) -> None:
        """``hosts``: the hosts that the fault may hit."""
        self.site = site
        self.random = random
        self.hosts = sorted(hosts)
        self.target = "all"

    @classmethod
    def why_not(cls, _site: Site) -> str | None:
        """Why the fault cannot be injected here; None if it can."""
        return None

    @abstractmethod
    def inject(self) -> None: ...

    def heal(self) -> None:
        """End the fault. Faults that end by themselves do nothing."""
        return

    def _one_of(self, kind: str, among: Collection[str] | None = None) -> Supervised:
        """A running service."""
        services = [each for each in self.site.services[kind] if among is None or each.name in among]
        self.random.shuffle(services)
        chosen = next((each for each in services if each.is_up), services[0])
        chosen.await_up()
        return chosen


class _Kill(Fault):
    is_brief = True
    kind: ClassVar[str]

    def __init__(self, site: Site, random: Random, hosts: Collection[str]) -> None:
        super().__init__(site, random, hosts)
        self.victim = self._one_of(self.kind)
        self.target = self.victim.name

    def inject(self) -> None:
        self.victim.kill()


class KillScheduler(_Kill):
    name = "SIGKILL of a scheduler"
    kind = "scheduler"


class KillConductor(_Kill):
    name = "SIGKILL of a conductor"
    kind = "conductor"


class KillAgent(Fault):
    name = "SIGKILL of an agent"
    is_brief = True

    def __init__(self, site: Site, random: Random, hosts: Collection[str]) -> None:
        super().__init__(site, random, hosts)
        self.victim = self._one_of("compute_agent", hosts)
        self.target = self.victim.name
        self.hosts = [self.victim.name]

    def inject(self) -> None:
        self.victim.kill()


class StopScheduler(Fault):
    """Afterwards it goes on with calls for which no caller waits any more."""

    name = "SIGSTOP of a scheduler"
    seconds = 1.75 * TIMEOUT

    def inject(self) -> None:
        self.victim = self._one_of("scheduler")
        self.target = self.victim.name
        self.victim.send(signal.SIGSTOP)

    def heal(self) -> None:
        self.victim.send(signal.SIGCONT)


class RestartRabbitMQ(Fault):
    """A clean stop and a crash in turn."""

    name = "RabbitMQ restarted"

    def inject(self) -> None:
        self.site.rabbitmq.restart(self.random.choice([signal.SIGTERM, signal.SIGKILL]))


class CloseConnections(Fault):
    name = "connections of RabbitMQ closed"
    is_brief = True

    def inject(self) -> None:
        self.site.rabbitmq.close_connections()


class RestartPostgreSQL(Fault):
    name = "PostgreSQL restarted"

    def inject(self) -> None:
        self.site.postgresql.restart()


class TerminateBackends(Fault):
    name = "backends of PostgreSQL terminated"
    is_brief = True

    def inject(self) -> None:
        self.site.postgresql.terminate_backends()


class CutNetwork(Fault):
    """Lasts while other faults happen elsewhere."""

    name = "network of an agent cut"
    seconds = 30.0

    def __init__(self, site: Site, random: Random, hosts: Collection[str]) -> None:
        super().__init__(site, random, hosts)
        self.target = self.random.choice(self.hosts)
        self.hosts = [self.target]

    @classmethod
    def why_not(cls, site: Site) -> str | None:
        return None if site.network else f"there are no network namespaces: {privacy.why_not()}"

    def inject(self) -> None:
        assert self.site.network is not None
        self.site.network.cut(self.target)

    def heal(self) -> None:
        assert self.site.network is not None
        self.site.network.heal(self.target)


class SetClock(Fault):
    name = "clock of a service off by an hour"
    seconds = 2.0
    is_brief = True

    def __init__(self, site: Site, random: Random, hosts: Collection[str]) -> None:
        super().__init__(site, random, hosts)
        agents = [agent for agent in site.services["compute_agent"] if agent.name in self.hosts]
        victims = [site.services["scheduler"], site.services["conductor"], agents]
        self.target = random.choice(random.choice(victims)).name
        self.hosts = [self.target] if self.target in self.hosts else self.hosts

    @classmethod
    def why_not(cls, site: Site) -> str | None:
        return None if site.clocks else "there is no C compiler (cc) for the library that turns the clock"

    def inject(self) -> None:
        assert self.site.clocks is not None
        self.site.clocks.set(self.target, self.random.choice([-3600, 3600]))

    def heal(self) -> None:
        assert self.site.clocks is not None
        self.site.clocks.set(self.target, 0)


class FillDisk(Fault):
    name = "disk of PostgreSQL full"
    seconds = 3.0

    @classmethod
    def why_not(cls, _site: Site) -> str | None:
        return None if privacy.has_mounts() else f"no disk can be mounted: {privacy.why_not()}"

    def inject(self) -> None:
        self.site.postgresql.fill_disk()

    def heal(self) -> None:
        self.site.postgresql.free_disk()


# How often each fault happens among a thousand. Brief faults happen more often than long ones.
SHARES: dict[type[Fault], int] = {
    KillScheduler: 160,
    KillConductor: 160,
    KillAgent: 210,
    StopScheduler: 40,
    RestartRabbitMQ: 26,
    CloseConnections: 110,
    RestartPostgreSQL: 45,
    TerminateBackends: 120,
    CutNetwork: 45,
    SetClock: 54,
    FillDisk: 30,
}


def deal(count: int, random: Random) -> list[type[Fault]]:
    """``count`` faults by their shares, to be popped from the end: one of each kind, then random ones."""
    total = sum(SHARES.values())
    more = [kind for kind, share in SHARES.items() for _ in range(round(count * share / total) - 1)]
    first = list(SHARES)
    random.shuffle(more)
    random.shuffle(first)
    return more + first
