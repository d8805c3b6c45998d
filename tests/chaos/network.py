"""A switch with a cable to every host. Each host is a network namespace. Needs a private network."""

import ctypes
import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.chaos.slow_cable import SlowCable
from tests.support.place import Place

ADDRESS = "10.77.0.1"  # ours, on the switch
_HARDWARE = "02:00:00:00:00:01"  # locally administered
_NOBODY = "02:00:00:00:00:02"  # no host has it
_NAMESPACES = Path("/run/netns")  # where ip(8) stores namespaces
_CLONE_NEWNET = 0x40000000  # setns(2)


class Network:
    """Makes the cables. A cut cable drops everything in both directions, without an error."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._slow: dict[str, SlowCable] = {}
        self._cables = {host: f"cable-{number}" for number, host in enumerate(hosts, start=1)}
        _NAMESPACES.mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "none", str(_NAMESPACES))
        # Else it has the lowest address of its ports, and hosts would send to one that is gone.
        _ip(f"link add switch address {_HARDWARE} type bridge forward_delay 0")
        _ip(f"address add {ADDRESS}/16 dev switch")
        _ip("link set switch up")
        self._addresses = {host: f"10.77.1.{number}" for number, host in enumerate(hosts, start=1)}
        for host, cable in self._cables.items():
            _ip(f"netns add {host}")
            _ip(f"link add {cable} type veth peer name eth0 netns {host}")
            _ip(f"link set {cable} master switch up")
            _ip(f"-n {host} address add {self._addresses[host]}/16 dev eth0")
            _ip(f"-n {host} link set eth0 up")
            _ip(f"-n {host} link set lo up")

    def on(self, host: str) -> list[str]:
        """The prefix of a command that runs on this host."""
        return ["nsenter", f"--net={_NAMESPACES / host}"]

    def enter(self, host: str) -> None:
        """Let the calling thread run on this host."""
        with (_NAMESPACES / host).open() as namespace:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def place(self, host: str) -> Place:
        """The host, for a server that runs there."""
        return Place(self._addresses[host], partial(self.enter, host))

    def separate(self, one: str, other: str) -> None:
        """Lose all packets between two hosts, without an error. Both still reach everybody else."""
        for here, there in ((one, other), (other, one)):
            wrong = f"{self._addresses[there]} lladdr {_NOBODY} nud permanent"
            _ip(f"-n {here} neighbour replace {wrong} dev eth0")

    def join(self, one: str, other: str) -> None:
        """Let the packets between two hosts through again."""
        for here, there in ((one, other), (other, one)):
            _ip(f"-n {here} neighbour delete {self._addresses[there]} dev eth0")

    def cut(self, host: str) -> None:
        """Drop all traffic to and from the host."""
        _ip(f"link set {self._cables[host]} down")

    def heal(self, host: str) -> None:
        """Let the traffic through again."""
        _ip(f"link set {self._cables[host]} up")

    def slow_down(self, host: str, delay: float, loss: float, seed: float) -> None:
        """Delay each packet to and from the host by so many seconds, and lose this part of them."""
        cable = self._cables[host]
        near, far, slow = f"{cable}-near", f"{cable}-far", f"{cable}-slow"
        self._slow[host] = SlowCable(near, far, delay, loss, seed)
        _ip(f"link add {slow} type bridge forward_delay 0")
        _ip(f"link set {near} master {slow} up")
        _ip(f"link set {slow} up")
        _ip(f"link set {far} master switch up")
        self._slow[host].start()
        _ip(f"link set {cable} master {slow}")

    def speed_up(self, host: str) -> tuple[int, int]:
        """End that; answer how many packets came, and how many were lost."""
        cable = self._cables[host]
        _ip(f"link set {cable} master switch")
        slow = self._slow.pop(host)
        slow.end()
        _ip(f"link delete {cable}-slow")
        return slow.carried, slow.lost


def _ip(arguments: str) -> None:
    _run("ip", *arguments.split())


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
