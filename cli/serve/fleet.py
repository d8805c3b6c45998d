"""The services of ``portclaim serve`` and their configuration files, all in its directory."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from oslo_config import cfg

from portclaim.cli import enrolling
from portclaim.common import config
from portclaim.common.errors import InvalidConfiguration
from portclaim.common.metrics.process import exported_by_this_process
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.common.service import Service
from portclaim.services.api.service import Api
from portclaim.services.compute_agent.agent import ComputeAgent
from portclaim.services.compute_agent.simulation import MARKER
from portclaim.services.conductor.service import Conductor
from portclaim.services.scheduler.fleet_metrics import FleetMetrics
from portclaim.services.scheduler.service import Scheduler, aliases_of

CONFIG_FILE = "portclaim.conf"
HOSTS = "hosts"

_SERVICES = """\
# Written anew by each start of portclaim serve.
[DEFAULT]
transport_url = {bus}
state_path = {state_path}

[database]
connection = {database_url}

[api]
listen = {listen}
port = {port}
"""

_ALIASES = """
[pci]
alias = {"name": "nic-pf", "vendor_id": "8086", "product_id": "1572", "device_type": "type-PF"}
alias = {"name": "nic-vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}
alias = {"name": "gpu", "vendor_id": "10de", "product_id": "20b5", "device_type": "type-PCI"}
"""

_AGENT = """\
[DEFAULT]
host = {host}
state_path = {state_path}
transport_url = {bus}

[rpc]
# A client that leaves a fake:// bus takes its pending messages along. They are sent again after this time.
timeout = 2

[compute_agent]
driver = simulated
sysfs_root = {sysfs_root}
enrolment_token_file = {token_file}

[simulated]
ports = 4
vfs_per_port = 8
accelerators = 1
numa_nodes = 2

[pci]
device_spec = {{"vendor_id": "8086", "product_id": "1572"}}
device_spec = {{"vendor_id": "8086", "product_id": "154c"}}
device_spec = {{"vendor_id": "10de", "product_id": "20b5"}}
"""


class Services:
    """All services, as threads of this process. ``config_files``: the operator's own, which come last."""

    def __init__(
        self,
        directory: Path,
        database_url: str,
        bus: str,
        listen: str,
        port: int,
        config_files: Sequence[str],
    ) -> None:
        self._directory = directory
        self._bus = bus
        self._files = config_files
        (directory / "empty").mkdir(exist_ok=True)
        self._state = directory / "state"
        self._database_url = database_url
        text = _SERVICES.format(
            bus=bus, state_path=self._state, database_url=database_url, listen=listen, port=port
        ) + enrolling.OPTIONS.format(services_key=enrolling.services_key(directory))
        self.config_file = directory / CONFIG_FILE
        self._conf = self._configure(CONFIG_FILE, text + ("" if config_files else _ALIASES), config_files)
        self.api = Api(self._configure(CONFIG_FILE, None, config_files))
        self._workers: list[Service] = [Conductor(self._conf), Scheduler(self._conf)]
        self._agents: list[Service] = []
        self.hosts: list[str] = []

    def add_hosts(self, simulate: int) -> None:
        """Have so many simulated hosts, and those of earlier starts; without any, this machine's devices."""
        known = {path.name for path in (self._directory / HOSTS).glob("sim-*")}
        wanted = known | {f"sim-{number}" for number in range(1, simulate + 1)}
        self.hosts = sorted(wanted, key=lambda name: int(re.sub(r"\D", "", name) or 0))
        self._agents = [self._simulated(host) for host in self.hosts]
        if not self._agents and self._conf.pci.device_spec:
            self._check_driver()
            self.hosts = [self._conf.host]
            token = enrolling.token_file(self._database_url, self._state, self._conf.host)
            file = self._directory / "agent.conf"
            file.write_text(f"[compute_agent]\nenrolment_token_file = {token}\n")
            conf = self._configure(CONFIG_FILE, None, (str(file), *self._files))
            self._agents = [ComputeAgent(conf)]

    def _check_driver(self) -> None:
        """Raise :class:`InvalidConfiguration` if the driver would not touch this machine's devices."""
        options = self._conf.compute_agent
        if options.driver == "simulated" and not (Path(options.sysfs_root) / MARKER).exists():
            raise InvalidConfiguration(
                "[pci] device_spec offers this machine's devices, but [compute_agent] driver = simulated "
                "does not touch real ones: set driver to libvirt or vfio, or use --simulate"
            )

    def start(self) -> None:
        """Start all; return when the API takes requests and every host is known."""
        for worker in self._workers:
            worker.start()
        self._at_once([agent.start for agent in self._agents])
        self.api.start()

    def metrics(self) -> AbstractContextManager[str | None]:
        """Answer Prometheus for all services, if ``[metrics] listen`` is set; the address."""
        return exported_by_this_process(
            self._conf, lambda: [FleetMetrics(self._conf, aliases_of(self._conf))]
        )

    def stop(self) -> None:
        """Stop all, the API first, so that no request meets a service that has stopped."""
        self.api.stop()
        self._at_once([agent.stop for agent in self._agents])
        for worker in reversed(self._workers):
            worker.stop()

    def client(self) -> SchedulerClient:
        """A client of the scheduler."""
        return SchedulerClient(transport(self._conf), self._conf)

    def _simulated(self, host: str) -> ComputeAgent:
        place = self._directory / HOSTS / host
        place.mkdir(parents=True, exist_ok=True)
        text = _AGENT.format(
            host=host,
            state_path=self._state,
            bus=self._bus,
            sysfs_root=place / "sysfs",
            token_file=enrolling.token_file(self._database_url, self._state, host),
        )
        return ComputeAgent(self._configure(f"{HOSTS}/{host}/agent.conf", text, ()))

    def _configure(self, name: str, text: str | None, more: Sequence[str]) -> cfg.ConfigOpts:
        file = self._directory / name
        if text is not None:
            file.touch(mode=0o600)
            file.write_text(text)
        files = [argument for each in (str(file), *more) for argument in ("--config-file", each)]
        return config.load([*files, "--config-dir", str(self._directory / "empty")], "portclaim-serve")

    @staticmethod
    def _at_once(calls: Sequence[Callable[[], object]]) -> None:
        if calls:
            with ThreadPoolExecutor(len(calls)) as threads:
                for call in [threads.submit(each) for each in calls]:
                    call.result()
