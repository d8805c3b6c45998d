"""Nova's tracker of one host, in memory, beside Portclaim's engine: a PF with 256 VFs, and a VF."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import clients
from bench.crew import crew
from bench.machine import PEERS
from bench.sample import merged
from bench.site import Site
from tests.support.straight_fleet import Size

PORTS, VFS = 8, 256
_TRACKER = Path(__file__).parent.parent / "peers" / "nova_tracker.py"
_HOSTS = 32
_ROUNDS = 3
_SECONDS = 3.0  # enough for some of Nova's claims


def results(site: Site) -> Iterator[dict[str, Any]]:
    """CPU time of a claim, and of its end, for both: of Portclaim in Python and in PostgreSQL."""
    if PEERS.exists():
        ran = subprocess.run(
            [PEERS, "-W", "ignore", _TRACKER, *map(str, (PORTS, VFS, _SECONDS * site.options.rounds))],
            capture_output=True,
            text=True,
            check=True,
        )
        for device, measured in json.loads(ran.stdout.splitlines()[-1]).items():
            yield {"name": "nova", "device": device, "ports": PORTS, "vfs": VFS, **measured}
    else:
        yield {"name": "nova", "left_out": "its environment is not installed"}
    size = Size(_HOSTS, PORTS, VFS)
    url = site.fleet(size)
    meter = site.meter(url)
    for device, alias in {"PF": "nic-pf:1", "VF": "nic-vf:1"}.items():
        with crew(clients.in_process, url, alias, 1) as hired:
            # Short, so that no more is claimed than there is.
            phases = [(hired.run(0.3, "claim", meter), hired.run(60.0, "end", meter)) for _ in range(_ROUNDS)]
        claims, ends = zip(*phases, strict=True)
        yield {
            "name": "portclaim",
            "device": device,
            "ports": PORTS,
            "vfs": VFS,
            "claim": merged(claims),
            "release": merged(ends),
        }
    site.forget(size)
