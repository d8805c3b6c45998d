"""All of Portclaim on one machine, under supervision: real engines, services, and hosts with a network."""

import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from portclaim.cli.http_client import HttpScheduler
from portclaim.cli.supervisor import supervise
from portclaim.common import config
from portclaim.common.db import tokens
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.services.compute_agent.drivers.simulated import FAULTS
from portclaim.services.compute_agent.simulation import SimulatedTree
from tests.chaos import privacy
from tests.chaos.clock import Clocks, has_compiler
from tests.chaos.cloud import ALIASES
from tests.chaos.guests import Guests
from tests.chaos.names import NAME, Names
from tests.chaos.network import Network
from tests.chaos.second_process import SecondProcess
from tests.chaos.servers import PostgreSQL, RabbitMQ, address
from tests.chaos.supervisor import Supervised
from tests.support.rabbitmq import free_ports
from tests.support.services import as_ini

PORTS, VFS = 6, 3  # of each host; the first host has VFs by demand
APIS = ["a-1", "a-2"]
TIMEOUT = 2.0  # seconds that a caller waits
UNPLUG = 0.2  # seconds that a guest takes to release a device; a move can be reverted meanwhile

# The options that decide how soon Portclaim recovers. An operator may set the same.
_BUS = {
    "heartbeat_timeout_threshold": 4,
    "rabbit_retry_interval": 1,
    "rabbit_retry_backoff": 1,
    "rabbit_interval_max": 2,
    "kombu_reconnect_delay": 0.5,
}
_TIMES = {
    "rpc": {"timeout": TIMEOUT},
    "conductor": {"resend_after": 0.5, "agent_down_after": 5.0},
    "compute_agent": {"report_interval": 1.0},
    "oslo_messaging_rabbit": _BUS,
}

Sections = dict[str, dict[str, object]]


class Site:
    """``services`` by kind: scheduler, conductor, api, compute_agent; an agent has the name of its host.

    ``cut``: the hosts whose network is cut at the moment.
    """

    def __init__(self, hosts: int) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="portclaim-chaos-"))
        self.directory.chmod(0o711)  # the user of PostgreSQL must reach its files
        self._holder = supervise(
            *("sh", "-c", "echo here; exec sleep infinity"),
            ready="here",
            log=self.directory / "log",
            directory=None if "PORTCLAIM_CHAOS_KEEP" in os.environ else self.directory,
        )
        self.hosts = [f"node-{number}" for number in range(1, hosts + 1)]
        self.cut: set[str] = set()
        self.network = Network(self.hosts) if privacy.has_network() else None
        enter = {host: partial(self.network.enter, host) for host in self.hosts} if self.network else {}
        self.names = Names(self.directory, address()) if privacy.has_mounts() else None
        self.guests = Guests(self.directory / "agents", self.hosts, enter)
        self.clocks = Clocks(self.directory / "clocks") if has_compiler() else None
        with ThreadPoolExecutor() as threads:
            broker = threads.submit(RabbitMQ, self.directory / "rabbitmq", self.names and NAME)
            self.postgresql = PostgreSQL(self.directory / "postgresql")
            self.rabbitmq = broker.result()
            self._ports_of_apis = dict(zip(APIS, free_ports(len(APIS)), strict=True))
            kinds = {
                "scheduler": ["s-1", "s-2"],
                "conductor": ["c-1", "c-2"],
                "api": APIS,
                "compute_agent": self.hosts,
            }
            self.services = {
                kind: list(threads.map(partial(self._start, kind), names)) for kind, names in kinds.items()
            }

    def client(self) -> SchedulerClient:
        """A client with its own connection to the bus, which does not repeat calls."""
        file = self.directory / "client.conf"
        once = {"timeout": TIMEOUT, "attempts": 1}
        file.write_text(as_ini(self._sections({"rpc": once})))
        conf = config.load(["--config-file", str(file)], "client")
        return SchedulerClient(transport(conf), conf)

    def http_client(self, api: str) -> HttpScheduler:
        """A client of this API, which does not repeat calls."""
        with self.postgresql.engine.begin() as connection:
            token = tokens.create(connection, f"client of {api} {uuid4()}", "operator", None)
        client = HttpScheduler(f"http://127.0.0.1:{self._ports_of_apis[api]}", token)
        client.hurry(TIMEOUT)
        return client

    def tree(self, host: str) -> SimulatedTree:
        """The devices of a host, for an operator on it."""
        return SimulatedTree(self.directory / f"{host}-sys")

    def start_second_agent(self, host: str) -> SecondProcess:
        """Another agent that says it is this host's, with a state and devices of its own."""
        state = Path(tempfile.mkdtemp(prefix="second-", dir=self.directory))
        command, _ = self._agent(host, state, state / "sys")
        return SecondProcess(command, state / host / "hypervisor.sqlite", state / "log")

    def all_services(self) -> list[Supervised]:
        return [service for of_kind in self.services.values() for service in of_kind]

    def records(self, query: str, hosts: Collection[str], *facts: object) -> dict[str, list[tuple[Any, ...]]]:
        """Rows from the records of the hypervisors of these hosts, by host."""
        found = {}
        for host in hosts:
            file = self.directory / "agents" / host / "hypervisor.sqlite"
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as record:
                found[host] = record.execute(query, facts).fetchall()
        return found

    def close(self) -> list[str]:
        """Stop everything cleanly; return what did not stop cleanly."""
        for kind in ("api", "compute_agent", "scheduler", "conductor"):
            with ThreadPoolExecutor() as threads:
                list(threads.map(Supervised.stop, self.services[kind]))
        self.guests.close()
        self.rabbitmq.stop()
        self.postgresql.stop()
        self._holder.stop()
        return [surprise for service in self.all_services() for surprise in service.surprises]

    def _start(self, kind: str, name: str) -> Supervised:
        if kind == "compute_agent":
            command, state = self._agent(name, self.directory / "agents", self.directory / f"{name}-sys")
            (state / FAULTS).write_text(json.dumps([{"action": "unplug", "delay": UNPLUG}]))
        else:
            own: Sections = {"database": {"connection": self.postgresql.url}, "pci": {"alias": ALIASES}}
            if kind == "api":
                own["api"] = {"port": self._ports_of_apis[name], "stop_timeout": 10}
            command = self._command(kind, self.directory / f"{name}.conf", own)
        return Supervised(
            name,
            command,
            self.clocks.environment(name) if self.clocks else {},
            self.directory,
            ready=rf"portclaim-{kind.replace('_', '-')} ready",
        )

    def _agent(self, host: str, state_path: Path, tree: Path) -> tuple[list[str | Path], Path]:
        """The command that starts an agent, and the directory of its state."""
        shape = {"ports": PORTS, "vfs_per_port": VFS, "accelerators": 0}
        number = f"0-{VFS}" if host == self.hosts[0] else str(VFS)
        own: Sections = {
            "DEFAULT": {"state_path": state_path, "host": host},
            "compute_agent": {"sysfs_root": tree, "idle_vfs_removed_after": 1.0},
            "simulated": {**shape, "guests": "defined"},
            "pci": {"device_spec": json.dumps({"vendor_id": "8086", "num_vfs": number})},
        }
        state = state_path / host
        state.mkdir(parents=True)
        before = self.network.on(host) if self.network else []
        return [*before, *self._command("compute_agent", state_path / f"{host}.conf", own)], state

    def _command(self, kind: str, file: Path, own: Mapping[str, Mapping[str, object]]) -> list[str | Path]:
        file.write_text(as_ini(self._sections(own)))
        return [sys.executable, "-m", f"portclaim.services.{kind}", "--config-file", file]

    def _sections(self, own: Mapping[str, Mapping[str, object]]) -> Sections:
        sections: Sections = {"DEFAULT": {"transport_url": self.rabbitmq.url}}
        for some in (_TIMES, own):
            for section, values in some.items():
                sections[section] = {**sections.get(section, {}), **values}
        return sections
