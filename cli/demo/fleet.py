"""All of Portclaim in this process: an embedded PostgreSQL, the bus in memory, every service as threads.

Each service reads a configuration file of its own, as it would on a machine of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from oslo_config import cfg

from portclaim.cli import enrolling
from portclaim.cli.demo.polling import DemoFailed
from portclaim.common import config
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.common.service import Service
from portclaim.services.compute_agent.agent import ComputeAgent
from portclaim.services.conductor.service import Conductor
from portclaim.services.scheduler.service import Scheduler

THIS_MACHINE = "this-machine"
REAL_DEVICES = Path("/sys/bus/pci/devices")
START_TIMEOUT = 30.0  # seconds

_SERVICES = """\
[DEFAULT]
transport_url = fake://

[database]
connection = {database_url}

[pci]
alias = {{"name": "nic-pf", "vendor_id": "8086", "product_id": "1572", "device_type": "type-PF"}}
alias = {{"name": "nic-vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}}
"""

_AGENT = """\
[DEFAULT]
host = {host}
state_path = {state_path}
transport_url = fake://

[rpc]
# A client that leaves a fake:// bus takes its pending messages along. They are sent again after this time.
timeout = 2

[compute_agent]
driver = simulated
sysfs_root = {sysfs_root}
enrolment_token_file = {token_file}

[simulated]
ports = {ports}
vfs_per_port = {vfs_per_port}
accelerators = {accelerators}

[pci]
{device_spec}
"""

# Every device is shown. None is claimed, and the driver `simulated` does not touch real devices.
_ANY_DEVICE = 'device_spec = {"address": "*:*:*.*"}'

_SIMULATED_DEVICES = """\
device_spec = {"vendor_id": "8086", "product_id": "1572"}
device_spec = {"vendor_id": "8086", "product_id": "154c"}
device_spec = {"vendor_id": "10de", "product_id": "20b5"}"""


@dataclass(frozen=True)
class SimulatedHost:
    """A simulated compute node. Its devices are a directory tree with the layout of sysfs."""

    name: str
    ports: int
    vfs_per_port: int
    accelerators: int


SIMULATED = (
    SimulatedHost("sim-1", ports=1, vfs_per_port=4, accelerators=0),
    SimulatedHost("sim-2", ports=2, vfs_per_port=4, accelerators=0),
    SimulatedHost("sim-3", ports=2, vfs_per_port=4, accelerators=1),
)


class Fleet:
    """All services, with their files in ``directory``. ``database_url``: a database with the schema."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self._directory = directory
        self._database_url = database_url
        (directory / "empty").mkdir()
        trust = enrolling.OPTIONS.format(services_key=enrolling.services_key(directory))
        self._conf = self._configure("services", _SERVICES.format(database_url=database_url) + trust)
        self.workers: list[Service] = [
            *(Conductor(self._conf) for _ in range(2)),
            *(Scheduler(self._conf) for _ in range(2)),
        ]
        self.agents: list[Service] = [self._simulated_agent(host) for host in SIMULATED]
        self.sees_real_devices = REAL_DEVICES.is_dir()
        if self.sees_real_devices:
            self.agents.append(self._real_agent())

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start all services, and stop them after the block. Raises :class:`DemoFailed`."""
        with ExitStack() as workers:
            for worker in self.workers:
                worker.start()
                workers.callback(worker.stop)
            with _started(self.agents):
                yield

    def client(self) -> SchedulerClient:
        """A client of the schedulers, as an API layer has one."""
        return SchedulerClient(transport(self._conf), self._conf)

    def hypervisor(self, host: str) -> Path:
        """The directory of this host's simulated hypervisor, with its record and its file of faults."""
        return self._directory / "state" / host

    def _simulated_agent(self, host: SimulatedHost) -> ComputeAgent:
        return self._agent(
            host=host.name,
            sysfs_root=self._directory / "sysfs" / host.name,
            ports=host.ports,
            vfs_per_port=host.vfs_per_port,
            accelerators=host.accelerators,
            device_spec=_SIMULATED_DEVICES,
        )

    def _real_agent(self) -> ComputeAgent:
        return self._agent(
            host=THIS_MACHINE,
            sysfs_root=Path("/sys"),
            ports=0,
            vfs_per_port=0,
            accelerators=0,
            device_spec=_ANY_DEVICE,
        )

    def _agent(self, host: str, **values: object) -> ComputeAgent:
        state = self._directory / "state"
        token = enrolling.token_file(self._database_url, state, host)
        text = _AGENT.format(host=host, state_path=state, token_file=token, **values)
        return ComputeAgent(self._configure(host, text))

    def _configure(self, name: str, text: str) -> cfg.ConfigOpts:
        file = self._directory / f"{name}.conf"
        file.write_text(text)
        file.chmod(0o600)
        return config.load(
            ["--config-file", str(file), "--config-dir", str(self._directory / "empty")], "portclaim-demo"
        )


def forget_environment() -> None:
    """Unset options that the environment has for the user's own services: they would override the demo's."""
    for name in [name for name in os.environ if re.match(r"OS_[A-Z_]+?__", name)]:
        del os.environ[name]


@contextmanager
def _started(agents: Sequence[Service]) -> Iterator[None]:
    """Start all agents at the same time, and stop them at the same time: each waits for answers meanwhile."""
    with ThreadPoolExecutor(len(agents)) as starters, ThreadPoolExecutor(len(agents)) as stoppers:
        try:
            starting = [starters.submit(agent.start) for agent in agents]
            done, _ = wait(starting, START_TIMEOUT, return_when=FIRST_EXCEPTION)
            for start in done:
                start.result()
            if len(done) < len(starting):
                raise DemoFailed(f"not all agents were ready within {START_TIMEOUT:.0f} s")
            yield
        finally:
            list(stoppers.map(lambda agent: agent.stop(), agents))
