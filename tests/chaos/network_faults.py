"""Faults of the network between a host and all else."""

import os
from collections.abc import Collection
from random import Random
from typing import ClassVar

from tests.chaos import privacy
from tests.chaos.faults import Fault
from tests.chaos.site import Site
from tests.chaos.slow_cable import TUN


class _OfOneAgent(Fault):
    """It concerns one of the hosts that it may have."""

    def __init__(self, site: Site, random: Random, hosts: Collection[str]) -> None:
        super().__init__(site, random, hosts)
        self.target = self.random.choice(self.hosts)
        self.hosts = [self.target]


class CutNetwork(_OfOneAgent):
    """Lasts while other faults happen elsewhere."""

    name = "network of an agent cut"
    seconds = 30.0

    @classmethod
    def why_not(cls, site: Site) -> str | None:
        return None if site.network else f"there are no network namespaces: {privacy.why_not()}"

    def inject(self) -> None:
        assert self.site.network is not None
        self.site.network.cut(self.target)

    def heal(self) -> None:
        assert self.site.network is not None
        self.site.network.heal(self.target)


class SlowNetwork(_OfOneAgent):
    """Each packet takes 0.1 s, so each answer 0.2 s, and one in twenty is lost in either direction."""

    name = "network of an agent slow: 200 ms, 5 % lost"
    seconds = 10.0
    delay: ClassVar[float] = 0.1  # seconds for one direction
    loss: ClassVar[float] = 0.05

    @classmethod
    def why_not(cls, site: Site) -> str | None:
        if site.network and os.access(TUN, os.R_OK | os.W_OK):
            return None
        return f"there are no network namespaces, or no {TUN}: {privacy.why_not()}"

    def inject(self) -> None:
        assert self.site.network is not None
        self.site.network.slow_down(self.target, self.delay, self.loss, self.random.random())

    def heal(self) -> None:
        assert self.site.network is not None
        carried, _ = self.site.network.speed_up(self.target)
        assert carried, "no packet has come through the slow network"
