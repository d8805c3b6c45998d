"""The faults of a site. Each begins with ``inject`` and is over when ``heal`` returns."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Collection
from random import Random
from typing import ClassVar

from tests.chaos import memory
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
        self.wrong: list[str] = []  # what it has seen itself

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


class KillApi(_Kill):
    name = "SIGKILL of an API"
    kind = "api"


class RunOutOfMemory(Fault):
    """The parent process starts a new worker."""

    name = "worker killed by the kernel: out of memory"
    is_brief = True

    def __init__(self, site: Site, random: Random, hosts: Collection[str]) -> None:
        super().__init__(site, random, hosts)
        self.victim = self._one_of(random.choice(["scheduler", "conductor"]))
        self.target = self.victim.name

    @classmethod
    def why_not(cls, _site: Site) -> str | None:
        return memory.why_not()

    def inject(self) -> None:
        worker = self.random.choice(sorted(self.victim.workers()))
        memory.run_out(worker)


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


class SecondAgent(Fault):
    """An agent with the name of another one, and with a state of its own, as on a machine that was cloned."""

    name = "second agent with the same name"
    seconds = 2.0  # after it was refused

    def __init__(self, site: Site, random: Random, hosts: Collection[str]) -> None:
        super().__init__(site, random, hosts)
        self.target = self._one_of("compute_agent", hosts).name
        self.hosts = [self.target]

    def inject(self) -> None:
        self.second = self.site.start_second_agent(self.target)
        self.second.await_refusal()

    def heal(self) -> None:
        self.wrong += self.second.end()
