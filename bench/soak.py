"""Very many claims in a row: does the rate hold, and what grows?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench import clients, plot
from bench.crew import crew
from bench.fleet import new_fleet
from portclaim.cli.embedded import postgresql
from tests.support.straight_fleet import Size

SIZE = Size(62, 4, 64)
_STEP = 10.0  # seconds between two looks
_PROCESSES, _THREADS = 2, 4

# History grows with the claims, and is there to be kept; what is worked on must not.
_KEPT = ("claims", "claim_devices", "claim_events")
_WORKED_ON = ("pci_devices", "port_pools", "outbox")
_SIZES = sa.text("""
    SELECT relname, pg_total_relation_size(oid) / 1024.0 / 1024.0 FROM pg_class WHERE relname = ANY(:names)
""")


def soak(claims: int, results: Path) -> None:
    """Make and release so many claims; print what was seen every few seconds, and write it with a plot."""
    seen: list[dict[str, Any]] = []
    done, began = 0, time.monotonic()
    with postgresql() as cluster:
        url = new_fleet(cluster, SIZE)
        engine = sa.create_engine(url)
        hired = crew(clients.in_process, url, "nic-vf:1", _THREADS, processes=_PROCESSES, threads=_THREADS)
        with hired as workers:
            while done < claims:
                sample = workers.run(_STEP)
                done += len(sample.latencies)
                seen.append(
                    {
                        "claims": done,
                        "seconds": round(time.monotonic() - began, 1),
                        "rate": round(sample.rate, 1),
                        **sample.percentiles,
                        "mib": _sizes(engine),
                    }
                )
                print(json.dumps(seen[-1]), flush=True)
        engine.dispose()
    results.mkdir(exist_ok=True)
    (results / "soak.json").write_text(json.dumps(seen, indent=1) + "\n")
    plot.lines(
        results / "soak.svg",
        "claims",
        {
            "claims per second": [(each["claims"], each["rate"]) for each in seen],
            **{f"{name}, MiB": [(each["claims"], each["mib"][name]) for each in seen] for name in _WORKED_ON},
        },
    )


def _sizes(engine: sa.Engine) -> dict[str, float]:
    """Each table with its indexes, in MiB."""
    with engine.connect() as connection:
        rows = connection.execute(_SIZES, {"names": [*_WORKED_ON, *_KEPT]})
        return {name: round(float(size), 1) for name, size in rows}
