"""Simulated hosts for the tests of the compute agent's parts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from oslo_config import cfg

from portclaim.common import config
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.drivers.simulated import SimulatedDriver
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree


@pytest.fixture
def host(tmp_path: Path) -> SimulatedTree:
    """Two ports with four VFs each, PFs 0000:01:00.0 and 0000:02:00.0, and an accelerator, 0000:03:00.0."""
    return build_host(tmp_path / "sys", HostShape(ports=2, vfs_per_port=4), "node-1")


@pytest.fixture
def scanner(host: SimulatedTree) -> Scanner:
    return Scanner(SysfsTree(host.root))


@pytest.fixture
def conf(host: SimulatedTree, tmp_path: Path) -> Iterator[cfg.ConfigOpts]:
    """The configuration of an agent of that host."""
    conf = config.load([], "test")
    conf.set_override("sysfs_root", str(host.root), "compute_agent")
    conf.set_override("state_path", str(tmp_path))
    conf.set_override("host", "node-1")
    yield conf
    # oslo.config stores an override in the option's group, which all ConfigOpts of a process share.
    conf.clear_override("sysfs_root", "compute_agent")


@pytest.fixture
def state_path(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def driver(conf: cfg.ConfigOpts, state_path: Path) -> SimulatedDriver:
    driver = SimulatedDriver(conf, state_path)
    driver.start()
    return driver


@pytest.fixture
def restart(conf: cfg.ConfigOpts, state_path: Path) -> Callable[[], SimulatedDriver]:
    """Makes the driver of an agent that was killed and started again."""

    def restart() -> SimulatedDriver:
        driver = SimulatedDriver(conf, state_path)
        driver.start()
        return driver

    return restart


@pytest.fixture
def make_step(scanner: Scanner) -> Callable[..., Step]:
    """Makes a step for devices of the host, given by their addresses."""

    def make(
        action: str,
        *addresses: str,
        claim_id: UUID | None = None,
        step: int = 1,
        instance_id: UUID | None = None,
    ) -> Step:
        devices = []
        for address in addresses:
            found = scanner.look(PciAddress.parse(address))
            assert found is not None
            devices.append(
                StepDevice(
                    address=address,
                    dev_type=found.dev_type.value,
                    vendor_id=found.vendor_id,
                    product_id=found.product_id,
                    parent_address=None if found.parent is None else str(found.parent),
                )
            )
        return Step(
            claim_id=claim_id or uuid4(),
            step=step,
            action=action,
            instance_id=instance_id or uuid4(),
            devices=devices,
        )

    return make
