"""Hosts that are hard to match: the requests compete for whole ports and for their VFs.

A host is written as masks: bit r of a device's mask is set if the device does for request r.
"""

from __future__ import annotations

import random
from typing import NamedTuple
from unittest import mock

from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.filters import Kind
from portclaim.common.pci.matching import FreeDevice, assign, port_modes
from portclaim.common.pci.matching.search import SearchBudget
from portclaim.common.pci.request import PciRequest

DEVICES = 64
REQUESTS = 8
ANY_TYPE = (DeviceType.PF, DeviceType.VF, DeviceType.PCI)


class Port(NamedTuple):
    """The mask of its PF and those of its VFs."""

    pf: int
    vfs: tuple[int, ...]

    @property
    def devices(self) -> int:
        return 1 + len(self.vfs)


class Host(NamedTuple):
    """``counts`` says how many devices each request asks for."""

    ports: tuple[Port, ...]
    counts: tuple[int, ...]

    @property
    def devices(self) -> int:
        return sum(port.devices for port in self.ports)

    @classmethod
    def parse(cls, text: str) -> Host:
        """``"1,2 1:06.0a 1:0c.03"``: counts, then each port's masks in hexadecimal digits."""
        counts, *ports = text.split()
        return cls(
            tuple(
                Port(int(pf, 16), tuple(int(vf, 16) for vf in vfs.split(".") if vf))
                for pf, vfs in (port.split(":") for port in ports)
            ),
            tuple(int(count) for count in counts.split(",")),
        )

    def __str__(self) -> str:
        ports = (f"{port.pf:02x}:{'.'.join(f'{vf:02x}' for vf in port.vfs)}" for port in self.ports)
        return " ".join([",".join(map(str, self.counts)), *ports])


def as_devices(host: Host) -> tuple[list[PciRequest], list[FreeDevice[str]]]:
    """Requests and devices that do for each other as the masks say, by tags."""
    kinds: dict[tuple[DeviceType, int], Kind] = {}

    def kind(dev_type: DeviceType, mask: int) -> Kind:
        tags = {f"for {number}": "yes" for number in range(len(host.counts)) if mask >> number & 1}
        return kinds.setdefault((dev_type, mask), Kind(dev_type, "8086", "1572", tags))

    devices: list[FreeDevice[str]] = []
    for number, port in enumerate(host.ports):
        name = f"port {number}"
        devices.append(FreeDevice(name, kind(DeviceType.PF, port.pf), name))
        devices += [
            FreeDevice(f"{name}.{vf}", kind(DeviceType.VF, mask), name) for vf, mask in enumerate(port.vfs)
        ]
    requests = [
        PciRequest(count, tuple({"dev_type": dev_type, f"for {number}": "yes"} for dev_type in ANY_TYPE))
        for number, count in enumerate(host.counts)
    ]
    return requests, devices


def work(host: Host) -> int:
    """How many steps the assignment of the host's devices takes, some microseconds each."""
    counted: list[SearchBudget] = []

    class Counted(SearchBudget):
        def __init__(self) -> None:
            super().__init__()
            counted.append(self)

    with mock.patch.object(port_modes, "SearchBudget", Counted):
        assign(*as_devices(host))
    return sum(budget.taken for budget in counted)


def hostile(chance: random.Random) -> Host:
    """A host on which 8 requests, up to 4 of them for whole ports, compete for the last of 64 devices."""
    for_ports = chance.choice([1, 1, 2, 3, 4])
    count = chance.choice([8, 10, 12, 14, 16, 18, 21])
    vfs = (DEVICES - count) // count
    fits = chance.choice([1, 2, 3, REQUESTS])
    alike = chance.random() < 0.4

    def vf() -> int:
        mask = 0
        for _ in range(fits):
            mask |= 1 << chance.randrange(for_ports, REQUESTS)
        return mask

    ports = []
    for _ in range(count):
        masks = [vf()] * vfs if alike else [vf() for _ in range(vfs)]
        ports.append(Port(chance.randrange(1, 1 << for_ports), tuple(masks)))
    whole = chance.randrange(for_ports, count)
    counts = [1] * REQUESTS
    for _ in range(whole - for_ports):
        counts[chance.randrange(for_ports)] += 1
    for _ in range((count - whole) * vfs - REQUESTS + for_ports + chance.choice([-3, -2, -1, 0, 0, 1])):
        counts[chance.randrange(for_ports, REQUESTS)] += 1
    return Host(tuple(ports), tuple(counts))


def changed(host: Host, chance: random.Random) -> Host:
    """A host like this one, with one to three things changed, of no more devices than allowed."""
    ports, counts = list(host.ports), list(host.counts)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        place, what = chance.randrange(len(ports)), chance.random()
        if what < 0.25:
            less, more = chance.sample(range(REQUESTS), 2)
            moved = min(1, counts[less] - 1)
            counts[less] -= moved
            counts[more] += moved
        elif what < 0.35:
            request = chance.randrange(REQUESTS)
            counts[request] = max(1, counts[request] + chance.choice([-1, 1]))
        elif what < 0.4:
            ports.append(Port(ports[place].pf, (1 << chance.randrange(REQUESTS),) * 2))
        elif what < 0.43 and len(ports) > 1:
            ports.pop(place)
        else:
            ports[place] = changed_port(ports[place], chance.choice(ports), chance)
    while sum(port.devices for port in ports) > DEVICES:
        ports.pop(chance.randrange(len(ports)))
    return Host(tuple(ports), tuple(counts))


def changed_port(port: Port, other: Port, chance: random.Random) -> Port:
    """The port with another PF or other VFs, of which it keeps at least one."""
    pf, vfs = port.pf, list(port.vfs) or [port.pf]
    one, bit, what = chance.randrange(len(vfs)), 1 << chance.randrange(REQUESTS), chance.random()
    if what < 0.35:
        vfs[one] = vfs[one] ^ bit or bit
    elif what < 0.55:
        vfs[one] = chance.choice(other.vfs or [bit])
    elif what < 0.7:
        pf = pf ^ bit or bit
    elif what < 0.8:
        vfs = list(other.vfs) or vfs
    elif what < 0.9:
        vfs.append(chance.randrange(1, 1 << REQUESTS))
    elif len(vfs) > 1:
        vfs.pop(one)
    return Port(pf, tuple(vfs))


def climb(host: Host, steps: int, chance: random.Random) -> Host:
    """The host that takes the most work of those that a hill climb from this one sees."""
    most = work(host)
    for _ in range(steps):
        other = changed(host, chance)
        if (taken := work(other)) >= most:
            most, host = taken, other
    return host
