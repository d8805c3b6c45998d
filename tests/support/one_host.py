"""One simulated host: its agent as a process beside the other services, and what an API layer sees of it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

from portclaim.common import config
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest, DeviceFilter
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.operator_messages import HostFilter
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.services.compute_agent.drivers.simulated_guests import SimulatedGuests
from tests.support.concurrency import wait_until
from tests.support.services import Options, ServiceProcess, Services, as_ini

HOST = "node-1"
PF = "0000:01:00.0"
VFS = ["0000:01:10.0", "0000:01:10.2", "0000:01:10.4", "0000:01:10.6"]
PATIENCE = 60.0  # seconds after which a test has failed
ALIASES = [
    '{"name": "pf", "vendor_id": "8086", "product_id": "1572", "device_type": "type-PF"}',
    '{"name": "vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}',
    '{"name": "gpu", "vendor_id": "10de", "product_id": "20b5"}',
]


class OneHost:
    """One host with one port of four VFs, its agent, and an API layer's view of it."""

    def __init__(
        self,
        services: Services,
        scheduler: SchedulerClient,
        agent: ComputeAgentClient,
        state: Path,
        *,
        guests: str,
        name: str = HOST,
        more: Options = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.pci: dict[str, object] = {"device_spec": json.dumps({"vendor_id": "8086"})}
        self.simulated: dict[str, object] = {
            "ports": 1,
            "vfs_per_port": 4,
            "accelerators": 1,
            "guests": guests,
        }
        self._guests = guests
        self._more = more
        self.guests = SimulatedGuests(state / name)
        self.scheduler = scheduler
        self.agent = agent
        self.state = state
        self._services = services

    @property
    def transport_url(self) -> str:
        return self._services.transport_url

    @property
    def sysfs_root(self) -> Path:
        return self.state / "sys"

    def options(self) -> dict[str, dict[str, object]]:
        return {
            "DEFAULT": {
                "host": self.name,
                "state_path": self.state,
                "transport_url": self._services.transport_url,
            },
            "pci": self.pci,
            "compute_agent": {"sysfs_root": self.sysfs_root, "report_interval": 0.5},
            "simulated": self.simulated,
            **self._more,
        }

    def beside(self, name: str) -> "OneHost":
        """Another host of the same fleet."""
        state = self.state.parent / name
        state.mkdir()
        return OneHost(
            self._services, self.scheduler, self.agent.at(name), state, guests=self._guests, name=name
        )

    def start_agent(self) -> ServiceProcess:
        return self._services("compute_agent", self.options())

    def claim(self, alias_spec: str, **request: Any) -> Claim:
        facts = {"claim_id": uuid4(), "instance_id": uuid4()} | request
        specs = {"pci_passthrough:alias": alias_spec}
        return self.scheduler.claim(ClaimRequest.model_validate(facts | {"extra_specs": specs}))

    def wait_for(self, claim_id: UUID, status: str) -> Claim:
        wait_until(lambda: self.scheduler.show(claim_id).status == status, f"the claim is {status}")
        return self.scheduler.show(claim_id)

    def wait_for_report(self) -> None:
        """Wait until its agent has reported once more."""
        last = 0.0

        def is_heard() -> bool:
            nonlocal last
            [host] = self.scheduler.hosts(HostFilter(host=self.name)).hosts
            before, last = last, host.agent_silent_for
            return last < before

        wait_until(is_heard, "its agent has reported")

    def statuses(self) -> dict[str, str]:
        listed = self.scheduler.devices(DeviceFilter(host=self.name)).devices
        return {device.address: device.effective_status for device in listed}

    def devices_in_tree(self) -> set[str]:
        return {path.name for path in (self.sysfs_root / "bus/pci/devices").iterdir()}

    def effects(self) -> list[tuple[str, str]]:
        """What guests got and lost, as the hypervisor has recorded it."""
        query = "SELECT action, address FROM effects WHERE action IN ('attach', 'detach') ORDER BY id"
        with closing(sqlite3.connect(self.state / self.name / "hypervisor.sqlite")) as record:
            return record.execute(query).fetchall()

    def held(self) -> set[str]:
        """The devices that guests have."""
        with closing(sqlite3.connect(self.state / self.name / "hypervisor.sqlite")) as record:
            return {address for (address,) in record.execute("SELECT address FROM attachments")}

    def prepared(self) -> set[str]:
        """The devices that were taken from the host and that no guest has yet."""
        with closing(sqlite3.connect(self.state / self.name / "hypervisor.sqlite")) as record:
            return {address for (address,) in record.execute("SELECT address FROM prepared")}

    def trouble(self, **fault: object) -> None:
        """Make the hypervisor fail in this way; without arguments it works again."""
        file = self.state / self.name / "faults.json"
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps([fault] if fault else []))
        partial.rename(file)


@contextmanager
def one_host(
    services: Services, directory: Path, guests: str = "any", more: Options = MappingProxyType({})
) -> Iterator[OneHost]:
    """Start a conductor and a scheduler. ``guests``: the instances that the simulated hypervisor has.

    ``more``: sections of the configuration of all services and of the client.
    """
    services("conductor", {"conductor": {"resend_after": 1.0, "agent_down_after": 2.0}, **more})
    services("scheduler", {"pci": {"alias": ALIASES}, **more})
    file = directory / "client.conf"
    file.write_text(as_ini({"DEFAULT": {"transport_url": services.transport_url}, **more}))
    conf = config.load(["--config-file", str(file)], "test")
    bus = transport(conf)
    state = directory / "host"
    state.mkdir()
    agent = ComputeAgentClient(bus, conf, server=HOST)
    yield OneHost(services, SchedulerClient(bus, conf), agent, state, guests=guests, more=more)
    bus.cleanup()
