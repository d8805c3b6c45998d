"""Many agents report for the first time at once, while claims go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench import clients, inventory_agents
from bench.crew import crew
from bench.inventory_copy import rows_of, seconds_to_copy
from bench.sample import merged
from bench.site import Site
from tests.support.straight_fleet import Size

_PROCESSES = 4
_LONGEST = 600.0  # seconds
_ALL = Size(1000, 4, 64)
_CLAIMED_ON = Size(62, 4, 64)
_PAGE = 4096


def results(site: Site, size: Size = _ALL) -> Iterator[dict[str, Any]]:
    """How long it takes until all are accepted, by the time that ``COPY`` of the same rows takes."""
    hosts = size.hosts // _PROCESSES
    url = site.fleet(_CLAIMED_ON)
    running = site.services(url)
    meter = site.meter(url, **running.parts)
    agents = crew(
        *(inventory_agents.first_reports, running.file, hosts, size.ports, size.vfs),
        processes=_PROCESSES,
        threads=hosts,
        warm_up=0,
    )
    claimers = crew(clients.over_bus, running.file, "nic-vf:1", processes=2)
    with agents as storm, claimers as quiet, ThreadPoolExecutor() as threads:
        before = quiet.run(5.0)
        with _watched(running.parts["conductor"]) as memory:
            began = time.monotonic()
            claims = threads.submit(_claims_until, ended := threading.Event(), quiet)
            reports = storm.run(_LONGEST, "first", meter)
            took = time.monotonic() - began
            ended.set()
    accepted = _accepted(url)
    assert accepted == hosts * _PROCESSES, f"{accepted} hosts"
    rows = rows_of(url)
    site.stop()
    copies = [seconds_to_copy(site.server, rows) for _ in range(site.options.rounds)]
    copy = sorted(copies)[len(copies) // 2]
    yield {
        "name": "storm of first reports",
        "size": str(size),
        "took_s": round(took, 1),
        "copy_s": round(copy, 1),
        "ratio": round(took / copy, 2),
        "reports": merged([reports]),
        "claims_before": before.percentiles,
        "claims_meanwhile": merged(claims.result()),
        "conductor_mib": memory,
    }


def _claims_until(ended: threading.Event, quiet: Any) -> list[Any]:
    samples = []
    while not ended.is_set():
        samples.append(quiet.run(2.0))
    return samples


_ACCEPTED = sa.text("""
    SELECT count(*) FROM compute_nodes WHERE host LIKE 'storm-%' AND inventory_digest IS NOT NULL
""")


def _accepted(url: str) -> int:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return int(connection.scalar(_ACCEPTED) or 0)


@contextmanager
def _watched(pid: int) -> Iterator[Mapping[str, float]]:
    """The resident memory of the largest worker of a service in MiB: at the beginning, and at most."""
    seen: dict[str, float] = {"before": _largest_worker(pid), "most": 0.0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            seen["most"] = max(seen["most"], _largest_worker(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _largest_worker(pid: int) -> float:
    workers = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    pages = [int(Path(f"/proc/{worker}/statm").read_text().split()[1]) for worker in workers]
    return round(max(pages, default=0) * _PAGE / 2**20, 1)
