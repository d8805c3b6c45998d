"""How much CPU does it take to assign 64 devices to 8 requests, at worst?

Hill climbs look for hosts that take the most work; each begins at a host made to be hard, or at one of the
hardest that longer searches have found. The hosts are the same in every run with the same seed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.site import Site
from portclaim.common.pci.matching import assign
from tests.support.hostile_hosts import DEVICES, REQUESTS, Host, as_devices, climb, hostile, work

HARDEST = Path(__file__).parents[2] / "tests" / "unit" / "pci" / "hardest_hosts.txt"
GOAL_MS = 10.0
REPEATS = 15
STARTS = 20
CLIMBS = 4  # from hosts made to be hard
SEED = 1
_STEPS, _SHORT_STEPS = 1000, 100  # of each climb


def results(site: Site) -> Iterator[dict[str, Any]]:
    """Search, measure, and answer the worst."""
    steps = _SHORT_STEPS if site.options.short else _STEPS
    chance = random.Random(SEED)
    known = [Host.parse(line) for line in HARDEST.read_text().splitlines()]
    starts = [max((hostile(chance) for _ in range(STARTS)), key=work) for _ in range(CLIMBS)]
    starts.append(max(known, key=work))
    found = [climb(start, steps, chance) for start in starts]
    worst_ms, worst = max((cpu_ms(host), host) for host in [*known, *found])
    yield {
        "name": "the worst found",
        "devices": DEVICES,
        "requests": REQUESTS,
        "goal_ms": GOAL_MS,
        "cpu_ms": round(worst_ms, 2),
        "steps": work(worst),
        "hosts_seen": len(known) + CLIMBS * STARTS + len(found) * steps,
        "worst": str(worst),
    }


def cpu_ms(host: Host) -> float:
    """CPU time of one assignment: the least of several, since others may load the machine."""
    requests, devices = as_devices(host)
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        assign(requests, devices)
        taken.append(time.process_time() - start)
    return min(taken) * 1000
