"""How fast is device_spec? 100,000 devices against 20 entries should take less than a second of one core.

Prints one JSON object per result. ``ratio`` is the goal's time by the time taken: 1 and more is good.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.host import HostView

MATCHES = 100_000
ENTRIES = 20
GOAL_SECONDS = 1.0
RUNS = 5
PORTS, VFS = 32, 63


def main() -> None:
    """Measure each way to write entries. Hardly a device is taken: all entries are compared."""
    devices = tuple(host())
    view = HostView.of(devices)
    for name, entries in {
        "ids": [{"vendor_id": "8086", "product_id": f"{number:04x}"} for number in range(ENTRIES)],
        "addresses with wildcards": [{"address": f"*:{number:02x}:*.7"} for number in range(ENTRIES)],
        "addresses of PFs": [
            {"address": f"0000:{16 + number:02x}:00.0", "product_id": "ffff"} for number in range(ENTRIES)
        ],
        "patterns per field": [{"address": {"bus": f"[f]{number % 16:x}"}} for number in range(ENTRIES)],
        "names of interfaces": [{"devname": f"eth{PORTS + number}"} for number in range(ENTRIES)],
    }.items():
        report(name, entries, devices, view)


def host() -> Iterator[PciDevice]:
    """Many ports, each with many VFs, which is where time would go."""
    for number in range(PORTS):
        pf = PciAddress(0, 16 + number, 0, 0)
        yield PciDevice(pf, DeviceType.PF, "15b3", "1017", netdev=f"eth{number}", total_vfs=VFS, num_vfs=VFS)
        for vf in range(1, VFS + 1):
            address = PciAddress(0, 16 + number, vf >> 3, vf & 7)
            yield PciDevice(address, DeviceType.VF, "15b3", "1018", parent=pf)


def report(
    name: str, entries: Sequence[dict[str, object]], devices: Sequence[PciDevice], view: HostView
) -> None:
    """Time MATCHES matches, RUNS times, and print the median."""
    specs = DeviceSpecs.parse([json.dumps(entries)], view)
    seconds, taken = [], 0
    for _ in range(RUNS):
        asked = list(itertools.islice(itertools.cycle(devices), MATCHES))
        start = time.process_time()
        taken = sum(specs.match(device, view) is not None for device in asked)
        seconds.append(time.process_time() - start)
    median = statistics.median(seconds)
    result = {
        "name": f"device_spec: {name}",
        "ratio": round(GOAL_SECONDS / median, 2),
        "goal": 1.0,
        "seconds": round(median, 3),
        "goal_seconds": GOAL_SECONDS,
        "matches": MATCHES,
        "entries": ENTRIES,
        "taken": taken,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
