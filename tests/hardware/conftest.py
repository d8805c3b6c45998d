"""A machine with real SR-IOV devices: two igb ports, an NVMe controller with VFs, an e1000e, an IOMMU.

The tests change its devices as they like, so they run nowhere but in the lab (``make test-hardware``).
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from oslo_config import cfg

from portclaim.common import config
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.sysfs import SysfsTree
from tests.hardware.guests import connection, guest, make_guest
from tests.support.engines import MISSING

__all__ = ["connection", "guest", "make_guest"]  # fixtures

DEVICES = Path("/sys/bus/pci/devices")
PORT, OTHER_PORT, NVME = "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"
VF = "0000:01:10.0"
NUM_VFS = {PORT: 4, OTHER_PORT: 0, NVME: 2}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PORTCLAIM_HARDWARE" not in os.environ:
        skip = pytest.mark.skip(reason=f"{MISSING}the hardware lab (make test-hardware)")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def write(address: str, attribute: str, text: object) -> None:
    (DEVICES / address / attribute).write_text(str(text))


def driver_of(address: str) -> str | None:
    link = DEVICES / address / "driver"
    return link.readlink().name if link.is_symlink() else None


def vfs_of(address: str) -> list[str]:
    return sorted(link.readlink().name for link in (DEVICES / address).glob("virtfn*"))


@pytest.fixture(autouse=True)
def machine() -> Iterator[None]:
    """Each test begins with the VFs of NUM_VFS, and everything on its own driver."""
    for port, count in NUM_VFS.items():
        if len(vfs_of(port)) != count:
            write(port, "sriov_numvfs", 0)
            write(port, "sriov_numvfs", count)
    run("udevadm", "settle")
    assert [driver_of(port) for port in (PORT, OTHER_PORT, NVME, VF)] == ["igb", "igb", "nvme", "igbvf"]
    yield
    run("udevadm", "settle")


@pytest.fixture
def scanner() -> Scanner:
    return Scanner(SysfsTree())


@pytest.fixture
def conf(tmp_path: Path) -> cfg.ConfigOpts:
    conf = config.load([], "test")
    conf.set_override("state_path", str(tmp_path))
    conf.set_override("host", "lab")
    return conf


@pytest.fixture
def make_step(scanner: Scanner) -> Callable[..., Step]:
    def make(action: str, *addresses: str, instance_id: UUID | None = None) -> Step:
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
            claim_id=uuid4(), step=1, action=action, instance_id=instance_id or uuid4(), devices=devices
        )

    return make
