"""Very many claims in a row: does the rate hold, and what grows?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from bench import clients
from bench.crew import crew
from bench.site import Site
from tests.support.straight_fleet import Size

SIZE = Size(62, 4, 64)
_PROCESSES, _THREADS = 2, 4
_STEPS = 12  # looks at the tables, in all

# History grows with the claims, and is there to be kept; what is worked on must not.
KEPT = ("claims", "claim_devices", "claim_events")
WORKED_ON = ("pci_devices", "port_pools", "outbox")
_SIZES = sa.text("""
    SELECT relname, pg_total_relation_size(oid) / 1024.0 / 1024.0 FROM pg_class WHERE relname = ANY(:names)
""")


def results(site: Site) -> Iterator[dict[str, Any]]:
    """Claims made and released in process by 8 clients; every few seconds the rate, and the tables' sizes."""
    seconds = site.options.soak_seconds
    step = max(2.0, seconds / _STEPS)
    url = site.fleet(SIZE)
    engine = sa.create_engine(url)
    meter = site.meter(url)
    with crew(clients.in_process, url, "nic-vf:1", _THREADS, processes=_PROCESSES, threads=_THREADS) as hired:
        done, began = 0, time.monotonic()
        while (spent := time.monotonic() - began) < seconds:
            sample = hired.run(min(step, max(2.0, seconds - spent)), meter=meter)
            done += len(sample.latencies)
            yield {
                "name": "soak",
                "claims": done,
                "seconds": round(time.monotonic() - began, 1),
                "rate": round(sample.rate, 1),
                **sample.percentiles,
                "postgresql_ms": round(sample.cpu["postgresql"] * 1000 / max(1, len(sample.latencies)), 3),
                "mib": _sizes(engine),
            }
    engine.dispose()
    site.forget(SIZE)


def _sizes(engine: sa.Engine) -> dict[str, float]:
    """Each table with its indexes, in MiB."""
    with engine.connect() as connection:
        rows = connection.execute(_SIZES, {"names": [*WORKED_ON, *KEPT]})
        return {name: round(float(size), 1) for name, size in rows}
