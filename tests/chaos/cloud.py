"""Portclaim as processes: a conductor, schedulers, and the agents of simulated hosts."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from tests.support.invariants import violations
from tests.support.services import ServiceProcess, Services

PORTS, VFS = 2, 3  # of each host
ALIASES = [
    '{"name": "pf", "vendor_id": "8086", "product_id": "1572", "device_type": "type-PF"}',
    '{"name": "vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}',
]


class Cloud:
    """The running services, the database, and the records of the hypervisors."""

    def __init__(
        self, services: Services, directory: Path, *, hosts: int, schedulers: int, workers: int
    ) -> None:
        self._services = services
        self._directory = directory
        self._workers = workers
        self.hosts = [f"node-{number}" for number in range(hosts)]
        self.engine = sa.create_engine(services.database_url)
        services("conductor", {"conductor": {"resend_after": 0.5}})
        self.schedulers = [self.start_scheduler() for _ in range(schedulers)]
        for host in self.hosts:
            services("compute_agent", self._agent(host))

    def start_scheduler(self) -> ServiceProcess:
        return self._services(
            "scheduler",
            {"pci": {"alias": ALIASES}, "conductor": {"resend_after": 0.5}},
            *("--workers", str(self._workers)),
        )

    def workers(self) -> set[int]:
        """The process ids of all schedulers' workers."""
        return {pid for scheduler in self.schedulers if scheduler.running for pid in scheduler.workers}

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement))]

    def broken_rules(self) -> list[tuple[str, str]]:
        with self.engine.connect() as connection:
            return violations(connection)

    def effects(self) -> list[tuple[UUID, str, str]]:
        """Everything that the hypervisors did: claim, action and device."""
        rows = self._records("SELECT claim_id, action, address FROM effects")
        return [(UUID(claim_id), action, f"{host} {address}") for host, (claim_id, action, address) in rows]

    def attached(self) -> set[tuple[UUID, str]]:
        """The devices that guests have, each with its claim."""
        rows = self._records("SELECT claim_id, address FROM attachments")
        return {(UUID(claim_id), f"{host} {address}") for host, (claim_id, address) in rows}

    def _records(self, query: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for host in self.hosts:
            with closing(sqlite3.connect(self._directory / host / "hypervisor.sqlite")) as record:
                yield from ((host, row) for row in record.execute(query))

    def _agent(self, host: str) -> dict[str, dict[str, object]]:
        return {
            "DEFAULT": {"host": host, "state_path": self._directory},
            "pci": {"device_spec": json.dumps({"vendor_id": "8086"})},
            "compute_agent": {"sysfs_root": self._directory / f"{host}-sys", "report_interval": 1.0},
            "simulated": {"ports": PORTS, "vfs_per_port": VFS, "accelerators": 0},
        }
