"""The numbers of the whole fleet for Prometheus, read every few seconds by one scheduler's exporter.

Whoever holds a lock in the database reads. So the numbers are there once, and cost the same however many
schedulers run. When the reader ends, or loses its connection, another one takes the lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from oslo_config import cfg

from portclaim.common.db.transaction import connect
from portclaim.common.metrics import fleet_catalogue as catalogue
from portclaim.common.metrics.kinds import Reading
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.filters import satisfies
from portclaim.common.pci.request import PciRequest
from portclaim.services.scheduler import fleet, fleet_statements
from portclaim.services.scheduler.fleet import Pools

if TYPE_CHECKING:
    from prometheus_client import Metric

LOG = logging.getLogger(__name__)

_LOCK = 0x6D657472  # "metr": one reader per database
_IN_PROGRESS = ["waiting", "claimed", "prepared", "releasing"]
_STALE = 3  # readings that may fail before the numbers are no longer told

Numbers = Mapping[Reading, Mapping[tuple[str, ...], float]]


class FleetMetrics:
    """A collector of prometheus_client. It reads in a thread, so that no scrape waits for the database."""

    def __init__(self, conf: cfg.ConfigOpts, aliases: Aliases) -> None:
        # Its connection is kept for hours, which is no overdue transaction. The server limits each statement.
        self._engine = connect(conf.database.connection, 1, answer_within=threading.TIMEOUT_MAX)
        self._aliases = aliases
        self._agent_down_after: float = conf.conductor.agent_down_after
        self._interval: float = conf.metrics.fleet_interval
        self._numbers: Numbers = {}
        self._until = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let another scheduler read."""
        self._ending.set()
        self._thread.join()
        self._engine.dispose()

    def describe(self) -> list[Metric]:
        """Nothing: the names are known without a look at the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        numbers = self._numbers if time.monotonic() < self._until else {}
        yield catalogue.READER.family({(): float(bool(numbers))})
        for reading, values in numbers.items():
            yield reading.family(values)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                with self._connection() as connection:
                    self._read_on(connection)
            except sa.exc.SQLAlchemyError as error:
                LOG.info("the fleet's numbers were not read, and will be tried again: %s", error)
            self._ending.wait(self._interval)

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """A connection that holds no transaction open. Its end gives up the lock."""
        with self._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(sa.text("SET statement_timeout = '5s'"))
            try:
                yield connection
            finally:
                connection.invalidate()

    def _read_on(self, connection: sa.Connection) -> None:
        leads = False
        while not self._ending.is_set():
            leads = leads or bool(connection.scalar(fleet_statements.LEAD, {"lock": _LOCK}))
            if leads:
                self._numbers = read(connection, self._aliases, self._agent_down_after)
                self._until = time.monotonic() + _STALE * self._interval
            self._ending.wait(self._interval)


def read(connection: sa.Connection, aliases: Aliases, agent_down_after: float) -> Numbers:
    """The numbers of the fleet, by the values of their labels."""
    facts = {"agent_down_after": agent_down_after, "most": fleet_statements.MOST, "statuses": _IN_PROGRESS}
    hosts = connection.execute(fleet_statements.HOSTS, facts).mappings().one()
    steps = dict(connection.execute(fleet_statements.STEPS, facts).mappings().one())
    claims = connection.execute(fleet_statements.CLAIMS, facts).all()
    events = connection.execute(fleet_statements.EVENTS, facts).all()
    return {
        catalogue.HOSTS: {(state,): number for state, number in hosts.items()},
        **_devices(connection, aliases),
        catalogue.CLAIMS: {(row.status,): row.claims for row in claims},
        **_waiting(connection, aliases),
        catalogue.STEPS_OLDEST: {(): steps.pop("oldest")},
        catalogue.STEPS: {(state,): number for state, number in steps.items()},
        catalogue.EVENTS: {(row.kind,): row.events for row in events},
        catalogue.EVENTS_OLDEST: {(row.kind,): row.oldest for row in events},
    }


def _devices(connection: sa.Connection, aliases: Aliases) -> Numbers:
    pools = fleet.read_pools(connection)
    rows = [row._asdict() for row in connection.execute(fleet_statements.DEVICES) if row.pool_id in pools]
    devices: Counter[tuple[str, ...]] = Counter()
    whole: Counter[tuple[str, ...]] = Counter()
    for name in aliases.by_name:
        matching = _pool_ids(aliases, name, pools)
        of_alias = [row for row in rows if row["pool_id"] in matching]
        known = {state: _sum(of_alias, state) for state in ("available", "held", "unclaimable")}
        known["unavailable"] = _sum(of_alias, "devices") - sum(known.values())
        devices.update({(name, status): number for status, number in known.items()})
        whole[name,] = _sum(of_alias, "whole_ports")
    return {catalogue.DEVICES: devices, catalogue.WHOLE_PORTS: whole}


def _pool_ids(aliases: Aliases, name: str, pools: Pools) -> set[int]:
    request = PciRequest(1, aliases.spec_of(aliases.by_name[name]))
    return {pool_id for pool_id, kind in pools.items() if satisfies(request, kind)}


def _sum(rows: list[dict[str, Any]], column: str) -> int:
    return sum(row[column] for row in rows)


def _waiting(connection: sa.Connection, aliases: Aliases) -> Numbers:
    claims: Counter[tuple[str, ...]] = Counter()
    oldest: dict[tuple[str, ...], float] = {}
    for row in connection.execute(fleet_statements.WAITING, {"most": fleet_statements.MOST}):
        asked = row.alias or ""
        name = asked.partition(":")[0].strip()
        label = ("several" if "," in asked else name if name in aliases.by_name else "other",)
        claims[label] += row.claims
        oldest[label] = max(row.oldest, oldest.get(label, 0.0))
    return {catalogue.WAITING: claims, catalogue.WAITING_OLDEST: oldest}
