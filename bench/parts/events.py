"""What the publishing of events costs, and how late an event comes.

Two publishers, as those of two workers of a conductor, publish to a private RabbitMQ. The events are those of
claims that are made, released and answered at a given rate. Each answer wakes one of the publishers.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa

from bench.bus import WORKERS, one_node
from bench.fleet import new_fleet
from bench.site import Site
from portclaim.common import config
from portclaim.common.db.transaction import connect
from portclaim.common.periodic import Periodic
from portclaim.services.conductor import service
from portclaim.services.conductor.event_log import Recorded
from portclaim.services.conductor.publisher import Exchange, Publisher
from tests.support.services import as_ini
from tests.support.straight_fleet import Size

HISTORY = 50_000  # claims whose events are published already
RATES = {"full rate": 110, "quiet": 2}  # claims per second
_SPAWN = multiprocessing.get_context("spawn")

# Claims that have ended, each with its three events. `first`: the first of the VFs that they held.
_CLAIMS = sa.text("""
    WITH ended AS (
        INSERT INTO claims (id, instance_id, compute_node_id, status, request, first_device_id)
        SELECT gen_random_uuid(), gen_random_uuid(), d.compute_node_id, 'released', '{}', d.id
          FROM generate_series(1, :count) n
          JOIN pci_devices d ON d.id = 249 + (:first + n) % 15000
        RETURNING id, first_device_id
    ), held AS (
        INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index, held_until)
        SELECT id, first_device_id, 2, 0, now() FROM ended
    )
    INSERT INTO claim_events (claim_id, from_status, to_status, cause)
    SELECT id, change.* FROM ended,
           (VALUES (NULL, 'claimed', 'claim'), ('claimed', 'releasing', 'release'),
                   ('releasing', 'released', 'detach done')) AS change
""")

_ALL_PUBLISHED = sa.text("""
    UPDATE event_cursors SET last_id = (SELECT max(id) FROM claim_events) WHERE kind = 'claim'
""")


def publisher(end: Connection, url: str, config_file: str) -> None:
    """A publisher in a process of its own. It is woken by True, and tells by None what it has done since."""
    exchange = Exchange(config.load(["--config-file", config_file], "bench"))
    engine = connect(url, 1)
    rounds: list[float] = []  # CPU seconds of each
    delays: list[tuple[str, float]] = []

    def publish(events: Sequence[Recorded]) -> None:
        exchange.publish(events)
        now = time.time()
        delays.extend((event.body, now) for event in events)

    def work() -> bool:
        began = time.thread_time()
        try:
            return worker.work()
        finally:
            rounds.append(time.thread_time() - began)

    worker = Publisher(engine, publish, lambda: thread.wake())  # noqa: PLW0108 - it is made below
    thread = Periodic("publisher", work, service._EVENTS_PAUSE, least_pause=service._EVENTS_LEAST_PAUSE)
    worker.work()
    with engine.connect() as connection:
        end.send(connection.scalar(sa.text("SELECT pg_backend_pid()")))
    thread.start()
    while (task := end.recv()) != "end":
        if task == "wake":
            thread.wake()
        else:
            told = [(json.loads(body)["at"], now) for body, now in delays]
            end.send(
                (len(rounds), sum(rounds), [now - datetime.fromisoformat(at).timestamp() for at, now in told])
            )
            rounds.clear()
            delays.clear()
    thread.end()


def measure(
    name: str, engine: sa.Engine, ends: Sequence[Connection], pids: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Make claims for so long, and answer what their events cost."""
    tell(ends)
    busy, rate, made, begin = cpu(pids), RATES[name], 0, time.monotonic()
    while (now := time.monotonic()) < begin + seconds:
        if begin + made / rate > now:
            time.sleep(begin + made / rate - now)
        with engine.begin() as connection:
            connection.execute(_CLAIMS, {"count": 1, "first": made})
        ends[made % len(ends)].send("wake")
        made += 1
    took = time.monotonic() - begin
    time.sleep(2 * service._EVENTS_PAUSE)
    busy = cpu(pids) - busy
    told = tell(ends)
    delays = [delay for each in told for delay in each[2]]
    cuts = statistics.quantiles(delays, n=100)
    return {
        "name": name,
        "claims_per_second": round(made / took, 1),
        "events": len(delays),
        "rounds_per_claim": round(sum(each[0] for each in told) / made, 3),
        "postgresql_ms_per_claim": round(1000 * busy / made, 3),
        "python_ms_per_claim": round(1000 * sum(each[1] for each in told) / made, 3),
        "delay_p50_s": round(cuts[49], 3),
        "delay_p99_s": round(cuts[98], 3),
    }


def tell(ends: Sequence[Connection]) -> list[tuple[int, float, list[float]]]:
    for end in ends:
        end.send("tell")
    return [end.recv() for end in ends]


def cpu(pids: Sequence[int]) -> float:
    """CPU seconds of processes, to the nanosecond."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def results(site: Site) -> Iterator[dict[str, Any]]:
    """At the full rate of claims, and at a quiet one."""
    with ExitStack() as stack:
        url = new_fleet(site.server.url, Size(62, 4, 64))
        stack.callback(site.server.drop_database, url)
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.execute(_CLAIMS, {"count": HISTORY, "first": 0})
            connection.execute(_ALL_PUBLISHED)
        broker = one_node(stack)
        file = Path(stack.enter_context(TemporaryDirectory())) / "bench.conf"
        file.write_text(as_ini({"DEFAULT": {"transport_url": broker.url}}))
        ends = []
        for _ in range(WORKERS):
            ours, its = _SPAWN.Pipe()
            process = _SPAWN.Process(target=publisher, args=(its, url, str(file)), daemon=True)
            process.start()
            ends.append(ours)
            stack.callback(process.join)
            stack.callback(ours.send, "end")
        pids = [end.recv() for end in ends]
        for name in RATES:
            yield measure(name, engine, ends, pids, 5 * site.options.seconds)
