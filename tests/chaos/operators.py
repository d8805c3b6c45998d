"""An operator who drains hosts and ports all the time, and changes how many VFs a drained port has."""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from portclaim.common.errors import ServiceUnavailable
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.claim_messages import Device, DeviceFilter
from tests.chaos.clients import Load
from tests.chaos.cycles import Cycle
from tests.chaos.site import VFS, Site

T = TypeVar("T")

_PAUSE = 0.05  # seconds between two looks


@dataclass
class Drained:
    """A host, or some devices of it, that got no new claims from ``since`` until ``until``."""

    host: str
    devices: frozenset[str] | None
    since: float
    until: float

    def forbids(self, cycle: Cycle) -> bool:
        """Was this claim asked for and served meanwhile, with such devices?"""
        if cycle.first_called is None or cycle.answered is None or not cycle.devices:
            return False
        is_meanwhile = self.since <= cycle.first_called and cycle.answered <= self.until
        is_there = self.devices is None or not self.devices.isdisjoint(cycle.devices)
        return is_meanwhile and cycle.host == self.host and is_there


class Operator(threading.Thread):
    """Works on one host at a time. It repeats calls until they are answered."""

    def __init__(self, site: Site, load: Load, random: Random) -> None:
        super().__init__(name="operator", daemon=True)
        self.is_idle = True
        self._site = site
        self._load = load
        self._random = random
        self._calls = site.client()
        self._drained: list[Drained] = []
        self._is_ending = self._is_ending_at_once = False

    def end(self, at_once: bool = False) -> None:
        """Begin nothing else, and wait for the end of the thread. ``at_once``: as for clients."""
        with self._load.change:
            self._is_ending, self._is_ending_at_once = True, at_once
            self._load.change.notify_all()
        self.join()

    def check(self, over: Collection[Cycle]) -> list[str]:
        """The claims among these that drained hosts and ports got."""
        return [
            f"claim {cycle.claim_id} got {set(cycle.devices or ())}, although {drained} was drained"
            for cycle in over
            for drained in self._drained
            if drained.forbids(cycle)
        ]

    def run(self) -> None:
        try:
            while (host := self._next()) is not None:
                time.sleep(self._random.uniform(0.0, 1.0))
                if host != self._site.hosts[0] and self._random.random() < 0.5:
                    self._change_vfs(host)
                else:
                    self._drain(host, None, self._stay)
                with self._load.lock:
                    self.is_idle = True
                    self._load.progress.notify_all()
        except Exception as error:
            with self._load.lock:
                self.is_idle = True
                self._load.wrong.append(f"the operator failed: {error!r}")
                self._load.progress.notify_all()
            raise

    def _next(self) -> str | None:
        """The next host; None at the end. Waits while all work is paused."""
        with self._load.change:
            while self._load.is_held and not self._is_ending:
                self._load.change.wait()
            if self._is_ending:
                return None
            self.is_idle = False
            reachable = [host for host in self._site.hosts if host not in self._load.unreachable]
            return self._random.choice(reachable)

    def _drain(self, host: str, port: list[Device] | None, work: Callable[[], None]) -> None:
        """Drain the host or the port, work, and allow claims again."""
        address = port[0].address if port else None
        if self._insist(lambda: self._calls.drain(host, "chaos", address)) is None:
            return
        since = time.monotonic()
        work()
        devices = frozenset(f"{host} {device.address}" for device in port) if port else None
        self._drained.append(Drained(host, devices, since, time.monotonic()))
        self._insist(lambda: self._calls.undrain(host, address))
        self._count("ports drained" if port else "hosts drained")

    def _stay(self) -> None:
        time.sleep(self._random.uniform(0.0, 0.5))

    def _change_vfs(self, host: str) -> None:
        """As an operator does who writes to sriov_numvfs: drain the port first, and wait for its claims."""
        listed = self._insist(lambda: self._calls.devices(DeviceFilter(host=host)).devices)
        if not listed:
            return
        chosen = self._random.choice([device.address for device in listed if device.dev_type == "type-PF"])
        port = [device for device in listed if device.port == chosen]
        self._drain(host, port, lambda: self._set_vfs(host, chosen))

    def _set_vfs(self, host: str, port: str) -> None:
        if not self._until(host, port, lambda devices: all(device.claim_id is None for device in devices)):
            return
        tree, pf = self._site.tree(host), PciAddress.parse(port)
        for count in (self._random.randrange(VFS), VFS):
            tree.set_num_vfs(pf, 0)
            tree.set_num_vfs(pf, count)
            self._until(host, port, lambda devices, count=count: len(devices) == 1 + count)  # type: ignore[misc]
        self._count("numbers of VFs changed")

    def _until(self, host: str, port: str, are_right: Callable[[list[Device]], bool]) -> bool:
        """Wait until the devices of the port are right. Answers False if its host cannot be reached."""
        while host not in self._load.unreachable:
            listed = self._insist(lambda: self._calls.devices(DeviceFilter(host=host)).devices)
            if listed is None:
                return False
            if are_right([device for device in listed if device.port == port]):
                return True
            time.sleep(_PAUSE)
        return False

    def _insist(self, call: Callable[[], T]) -> T | None:
        """Call until there is an answer; None if everything must end at once."""
        while not self._is_ending_at_once:
            try:
                return call()
            except ServiceUnavailable:
                time.sleep(_PAUSE)
        return None

    def _count(self, what: str) -> None:
        with self._load.lock:
            self._load.done[what] += 1
