"""Several agents, a conductor and a scheduler as objects in one process, on the bus in memory."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from oslo_config import cfg

from portclaim.common import config
from portclaim.common.rpc.claim_messages import ClaimRequest, DeviceFilter
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.services.compute_agent.agent import ComputeAgent
from portclaim.services.conductor.service import Conductor
from portclaim.services.scheduler.service import Scheduler
from tests.support.concurrency import wait_until
from tests.support.services import as_ini

HOSTS = ["node-1", "node-2", "node-3"]
ALIAS = '{"name": "vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}'


@pytest.fixture
def make_conf(tmp_path: Path) -> Callable[..., cfg.ConfigOpts]:
    """Makes a service's own configuration."""

    def make(name: str, **sections: dict[str, object]) -> cfg.ConfigOpts:
        file = tmp_path / f"{name}.conf"
        file.write_text(as_ini({"DEFAULT": {"transport_url": "fake://"}} | sections))
        return config.load(["--config-file", str(file)], name)

    return make


@pytest.fixture
def make_agent(make_conf: Callable[..., cfg.ConfigOpts], tmp_path: Path) -> Callable[[str], ComputeAgent]:
    """Makes the agent of a host, not started."""

    def make(host: str) -> ComputeAgent:
        conf = make_conf(
            host,
            DEFAULT={"transport_url": "fake://", "host": host, "state_path": tmp_path},
            pci={"device_spec": json.dumps({"vendor_id": "8086"})},
            compute_agent={"sysfs_root": tmp_path / host / "sys"},
            simulated={"ports": 1, "vfs_per_port": 2},
        )
        return ComputeAgent(conf)

    return make


@pytest.fixture
def scheduler(
    make_conf: Callable[..., cfg.ConfigOpts], make_agent: Callable[[str], ComputeAgent], database_url: str
) -> Iterator[SchedulerClient]:
    """A scheduler client of the running fleet."""
    database = {"database": {"connection": database_url}}
    services = [
        Conductor(make_conf("conductor", **database)),
        Scheduler(make_conf("scheduler", **database, pci={"alias": ALIAS})),
        *(make_agent(host) for host in HOSTS),
    ]
    with ExitStack() as running:
        for service in services:
            service.start()
            running.callback(service.stop)
        conf = make_conf("client")
        bus = transport(conf)
        running.callback(bus.cleanup)
        yield SchedulerClient(bus, conf)


def test_each_agent_does_the_steps_of_its_own_host(scheduler: SchedulerClient, tmp_path: Path) -> None:
    claims = [
        scheduler.claim(
            ClaimRequest(
                claim_id=uuid4(),
                instance_id=uuid4(),
                extra_specs={"pci_passthrough:alias": "vf:2"},
                hosts=[host],
            )
        )
        for host in HOSTS
    ]
    for claim in claims:
        wait_until(
            lambda id_=claim.claim_id: scheduler.show(id_).status == "allocated", "the claim is allocated"
        )
    listed = scheduler.devices(DeviceFilter()).devices
    assert sorted({device.host for device in listed}) == HOSTS
    for host in HOSTS:
        drivers = (tmp_path / host / "sys/bus/pci/devices").glob("*/driver")
        assert sorted(link.readlink().name for link in drivers).count("vfio-pci") == 2


def test_an_agent_stopped_before_it_has_started_does_not_start(
    make_agent: Callable[[str], ComputeAgent], tmp_path: Path
) -> None:
    agent = make_agent("node-1")
    agent.stop()
    agent.start()
    assert not (tmp_path / "node-1" / "sys").exists()
