"""Simulated agents: what their hosts have, and processes in which many of them report over the bus."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from uuid import uuid4

from bench.crew import CYCLE, Work
from portclaim.common import config
from portclaim.common.errors import HostOwnedByAnotherAgent, ServiceUnavailable
from portclaim.common.rpc.agent_messages import DeviceReport
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.transport import transport
from portclaim.services.compute_agent import conductor_link
from portclaim.services.compute_agent.conductor_link import ConductorLink
from portclaim.services.compute_agent.inventory import Inventory

PF, VF = "1017", "1018"
"""The product ids of the devices: no claim of a benchmark asks for them."""


def pf(port: int) -> str:
    return f"0000:{port + 1:02x}:00.0"


def vf(port: int, number: int) -> str:
    return f"0000:{port + 1:02x}:{1 + number // 8:02x}.{number % 8}"


def inventory(ports: int, vfs: int, host: int = 0) -> Inventory:
    """What an agent reports of a host with so many ports with so many VFs each: all facts that it reads."""
    return Inventory(
        [device for port in range(ports) for device in _port(port, vfs, host, port * 2 // ports)], []
    )


def _port(port: int, vfs: int, host: int, numa_node: int) -> list[DeviceReport]:
    common = {
        "class_id": "0x020000",
        "driver": "mlx5_core",
        "netdev": f"ens{port + 1}np0",
        "mac": f"02:00:{host // 256 % 256:02x}:{host % 256:02x}:{port:02x}:00",
        "serial": f"MT{host:08d}X{port:05d}",
    }
    facts = {"vendor_id": "15b3", "numa_node": numa_node, "tags": {"physical_network": f"net{port % 2}"}}
    whole = DeviceReport(
        address=pf(port),
        dev_type="type-PF",
        product_id=PF,
        attributes={**common, "iommu_group": port, "total_vfs": vfs, "num_vfs": vfs},
        **facts,
    )
    slices = [
        DeviceReport(
            address=vf(port, number),
            dev_type="type-VF",
            product_id=VF,
            parent_address=pf(port),
            attributes={**common, "iommu_group": 100 + number, "netdev": None, "vf_num": number},
            **facts,
        )
        for number in range(vfs)
    ]
    return [whole, *slices]


def first_reports(config_file: str, hosts: int, ports: int, vfs: int) -> Work:
    """The task ``first``: the agent of one more host reports for the first time, until it is accepted.

    Counts the calls that got no answer in time, and the agents that were told that they are not the host's.
    """
    conductor = _conductor(config_file)
    notes: Counter[str] = Counter()
    waiting = [
        (f"storm-{os.getpid()}-{number}", inventory(ports, vfs, host=os.getpid() * hosts + number))
        for number in range(hosts)
    ]
    next_host = iter(waiting)

    def first() -> bool:
        if (mine := next(next_host, None)) is None:
            return False
        host, everything = mine
        link = ConductorLink(conductor, host, uuid4())
        for attempt in itertools.count():
            try:
                link.publish(everything, in_full=True)
            except ServiceUnavailable:
                notes["not answered in time"] += 1
                time.sleep(min(0.5 * 2**attempt, 10.0))  # as a reporter does
            except HostOwnedByAnotherAgent:
                notes["told that it is another's host"] += 1
                raise
            else:
                return True
        return False

    return Work({CYCLE: conductor.ping, "first": first}, notes)


def signs_of_life(config_file: str, hosts: int, interval: float, speed: float) -> Work:
    """The task ``life``: the agents of so many hosts show that they live, each once in ``interval`` seconds.

    ``speed``: by how much their interval is shorter than that of the agents that they stand for. What an
    agent does after a longer time, it does so much sooner. The task ``rest`` does nothing.
    """
    conductor_link.SURE_FOR /= speed
    conductor = _conductor(config_file)
    notes: Counter[str] = Counter()
    links = itertools.cycle([_known(conductor, number) for number in range(hosts)])
    due = time.monotonic()

    def life() -> None:
        nonlocal due
        link, known = next(links)
        now = time.monotonic()
        due = max(due + interval / hosts, now - 1.0)
        time.sleep(max(0.0, due - now))
        notes["calls"] += link.is_in_doubt
        assert not link.publish(known, in_full=False)

    return Work({CYCLE: conductor.ping, "rest": lambda: time.sleep(0.5), "life": life}, notes)


def _known(conductor: ConductorClient, number: int) -> tuple[ConductorLink, Inventory]:
    """The agent of a small host, and what it has reported."""
    link, everything = ConductorLink(conductor, f"life-{os.getpid()}-{number}", uuid4()), inventory(1, 1)
    link.publish(everything, in_full=True)
    return link, everything


def _conductor(config_file: str) -> ConductorClient:
    conf = config.load(["--config-file", config_file], "bench")
    return ConductorClient(transport(conf), conf)
