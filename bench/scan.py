"""How much CPU does a scan of a large host take? 8 PFs with 256 VFs each: less than 0.3 s of one core.

Prints one JSON object per result. ``ratio`` is the goal's time by the time taken: 1 and more is good.
The tree is made of plain files, which says nothing about a kernel that answers slowly.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from portclaim.common.pci.device import DeviceType
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from portclaim.services.compute_agent.sysfs import SysfsTree

SHAPE = HostShape(ports=8, vfs_per_port=256, accelerators=0)
GOAL_SECONDS = 0.3
RUNS = 7


def main() -> None:
    """Build the tree; scan it once as at an agent's start, as at an audit, and after an event of one VF."""
    with tempfile.TemporaryDirectory() as directory:
        tree = build_host(Path(directory) / "sys", SHAPE, "bench")
        scanner = Scanner(SysfsTree(tree.root))
        report("scan: first", [seconds(scanner.scan)], len(scanner.scan().devices))
        report("scan: again", [seconds(scanner.scan) for _ in range(RUNS)], len(scanner.scan().devices))
        vf = next(device.address for device in scanner.scan().devices if device.dev_type is DeviceType.VF)
        changed = [seconds(lambda: scanner.rescan({vf})) for _ in range(RUNS)]
        report("scan: one VF changed", changed, len(scanner.scan().devices))


def seconds(scan: Callable[[], object]) -> float:
    """CPU time of one scan."""
    start = time.process_time()
    scan()
    return time.process_time() - start


def report(name: str, measured: list[float], devices: int) -> None:
    """Print the median."""
    median = statistics.median(measured)
    result = {
        "name": name,
        "ratio": round(GOAL_SECONDS / median, 2),
        "goal": 1.0,
        "seconds": round(median, 3),
        "goal_seconds": GOAL_SECONDS,
        "devices": devices,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
