"""The agent detects every disk that the host uses, and no other."""

import os
from pathlib import Path

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.disks import host_uses
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.host_use import check_not_used_by_host
from portclaim.services.compute_agent.sysfs import SysfsTree

NVME, OTHER = PciAddress.parse("0000:03:00.0"), PciAddress.parse("0000:04:00.0")
ROOT = "22 1 0:21 / / rw,relatime shared:1 - overlay overlay rw"


class Machine:
    """Two NVMe controllers with one disk each. The first disk has a partition. Also mounts and swap."""

    def __init__(self, directory: Path) -> None:
        self.root, self.proc = directory / "sys", directory / "proc"
        for number, address in enumerate([NVME, OTHER]):
            controller = self.place(address) / f"nvme/nvme{number}"
            self.add_disk(controller / f"nvme{number}n1", f"259:{number}")
        self.add_disk(self.place(NVME) / "nvme/nvme0/nvme0n1/nvme0n1p1", "259:8")
        (self.proc / "self").mkdir(parents=True)
        self.mount()
        self.swap_to()

    def place(self, address: PciAddress) -> Path:
        return self.root / f"devices/pci0000:00/0000:00:02.0/{address}"

    def add_disk(self, place: Path, numbers: str) -> None:
        (place / "holders").mkdir(parents=True)
        (place / "dev").write_text(f"{numbers}\n")
        self.link(self.root / "class/block" / place.name, place)

    def link(self, at: Path, target: Path) -> None:
        at.parent.mkdir(parents=True, exist_ok=True)
        at.symlink_to(os.path.relpath(target, at.parent))

    def mount(self, *lines: str) -> None:
        (self.proc / "self/mountinfo").write_text("\n".join([ROOT, *lines]) + "\n")

    def swap_to(self, *lines: str) -> None:
        (self.proc / "swaps").write_text("\n".join(["Filename Type Size Used Priority", *lines]) + "\n")

    def use(self, address: PciAddress) -> str | None:
        return host_uses(SysfsTree(self.root), address, self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_unused_disk_is_not_in_use(machine: Machine) -> None:
    assert (machine.use(NVME), machine.use(OTHER)) == (None, None)


def test_a_disk_with_a_mounted_partition_is_in_use(machine: Machine) -> None:
    machine.mount("30 22 259:8 / /srv/a\\040b rw shared:2 - ext4 /dev/nvme0n1p1 rw")
    assert machine.use(NVME) == "nvme0n1p1 is mounted on /srv/a b"
    assert machine.use(OTHER) is None


def test_a_disk_mounted_outside_the_mount_namespace_of_the_agent_is_in_use(machine: Machine) -> None:
    """This happens in a container that shares the host's processes but not its mounts."""
    (machine.proc / "1").mkdir()
    (machine.proc / "1/mountinfo").write_text("30 22 259:8 / /srv rw - ext4 /dev/nvme0n1p1 rw\n")
    assert machine.use(NVME) == "nvme0n1p1 is mounted on /srv"


def test_a_disk_of_a_mounted_btrfs_is_in_use(machine: Machine) -> None:
    machine.mount("30 22 0:40 /@ /srv rw shared:2 - btrfs /dev/nvme1n1 rw,subvol=/@")
    assert machine.use(OTHER) == "nvme1n1 is mounted on /srv"


def test_a_disk_with_swap_is_in_use(machine: Machine) -> None:
    machine.swap_to("/dev/nvme0n1p1 partition 1000 0 -2")
    assert machine.use(NVME) == "nvme0n1p1 is used for swap"


def test_a_disk_below_a_device_mapper_device_is_in_use(machine: Machine) -> None:
    (machine.root / "class/block/nvme0n1p1/holders/dm-0").mkdir()
    assert machine.use(NVME) == "dm-0 is built on nvme0n1p1"


def test_a_multipath_disk_counts_for_its_controller(machine: Machine) -> None:
    """With multipath the disk is below the subsystem and not below a PCI device."""
    subsystem = machine.root / "devices/virtual/nvme-subsystem/nvme-subsys0"
    machine.add_disk(subsystem / "nvme7n1", "259:9")
    machine.link(machine.root / "class/nvme-subsystem/nvme-subsys0", subsystem)
    machine.link(subsystem / "nvme1", machine.place(OTHER) / "nvme/nvme1")
    machine.mount("30 22 259:9 / /srv rw - ext4 /dev/nvme7n1 rw")
    assert machine.use(OTHER) == "nvme7n1 is mounted on /srv"
    assert machine.use(NVME) is None


def test_a_device_with_a_disk_in_use_is_not_handed_over(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.mount("30 22 259:0 / /srv rw - ext4 /dev/nvme0n1 rw")
    monkeypatch.setattr(
        "portclaim.services.compute_agent.host_use.host_uses",
        lambda tree, address: host_uses(tree, address, machine.proc),
    )
    with pytest.raises(DriverError, match=r"03:00\.0 is used by this host: nvme0n1 is mounted on /srv"):
        check_not_used_by_host(SysfsTree(machine.root), NVME, set())
    check_not_used_by_host(SysfsTree(machine.root), OTHER, set())
