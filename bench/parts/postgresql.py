"""Claims on other releases of PostgreSQL, by 1 to 128 clients: how many of them share a sync of the log.

A commit waits until the log is on the disk. PostgreSQL syncs once for all commits that wait at the same time
(group commit), so more clients need fewer syncs each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import sqlalchemy as sa

from bench import bus, clients
from bench.cpu import Meter
from bench.crew import Crew, crew
from bench.fleet import new_fleet
from bench.sample import Sample, merged, ratio
from bench.server import Server, durable_postgresql
from bench.site import Site
from tests.support.straight_fleet import Size

SIZE, ALIAS, CLIENTS = Size(62, 4, 64), "nic-vf:1", (1, 8, 32, 128)

# Until 17 in pg_stat_wal, from 18 on in pg_stat_io (PostgreSQL's manual, "The Cumulative Statistics System").
_SYNCS = {
    False: "SELECT wal_sync FROM pg_stat_wal",
    True: "SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'",
}
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


def results(site: Site) -> Iterator[dict[str, Any]]:
    """A result for each server and number of clients. In each round all servers have their turn."""
    with ExitStack() as stack:
        servers = [
            (site.server, new_fleet(site.server.url, SIZE)),
            *(_other(stack.enter_context(durable_postgresql(each))) for each in site.options.postgresql),
        ]
        versions = [server.settings()["server_version"].split()[0] for server, _ in servers]
        for count in CLIENTS:
            samples: list[list[Sample]] = [[] for _ in servers]
            syncs = [0.0] * len(servers)
            for _ in range(site.options.rounds):
                for number, (server, url) in enumerate(servers):
                    with _engine(url, count) as hired:
                        hired.run(1.0)
                        before = _written(url)
                        samples[number].append(hired.run(site.options.seconds, meter=_meter(server, url)))
                    after = _written(url)
                    syncs[number] += (after[1] - before[1]) / max(1, after[0] - before[0])
            for version, theirs, synced in zip(versions, samples, syncs, strict=True):
                yield {
                    "name": f"PostgreSQL {version}",
                    "clients": count,
                    "ratio": round(ratio(list(zip(theirs, samples[0], strict=True))), 3),
                    "syncs_per_commit": round(synced / site.options.rounds, 3),
                    **merged(theirs),
                }


def _other(server: Server) -> tuple[Server, str]:
    return server, new_fleet(server.url, SIZE)


def _engine(url: str, count: int) -> AbstractContextManager[Crew]:
    processes = min(count, bus.WORKERS)
    threads = count // processes
    return crew(clients.in_process, url, ALIAS, threads, processes=processes, threads=threads)


def _meter(server: Server, url: str) -> Meter:
    return Meter({"postgresql": server.pid}, sa.make_url(url).database)


def _written(url: str) -> tuple[int, int]:
    """Commits and syncs so far."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        version = int(str(connection.scalar(sa.text("SHOW server_version_num"))))
        syncs = _SYNCS[version >= 180000]
        return int(connection.scalar(sa.text(_COMMITS)) or 0), int(connection.scalar(sa.text(syncs)) or 0)
