"""A simulated host behaves as the kernel does."""

import errno
import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.numa import read_numa_cells
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from portclaim.services.compute_agent.simulation import MARKER, NotSimulated, SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree

PF = PciAddress.parse("0000:01:00.0")
VF = PciAddress.parse("0000:01:10.0")
ACCELERATOR = PciAddress.parse("0000:03:00.0")


def vfs_of(host: SimulatedTree, pf: PciAddress) -> int:
    return sum(device.parent == pf for device in Scanner(SysfsTree(host.root)).scan().devices)


def driver_of(host: SimulatedTree, address: PciAddress) -> str | None:
    device = Scanner(SysfsTree(host.root)).look(address)
    return None if device is None else device.driver


class TestNumberOfVfs:
    def test_setting_the_number_of_vfs_creates_and_removes_vfs(self, host: SimulatedTree) -> None:
        host.set_num_vfs(PF, 0)
        assert vfs_of(host, PF) == 0
        host.set_num_vfs(PF, 3)
        assert vfs_of(host, PF) == 3
        assert not list((host.root / "kernel/iommu_groups").glob("*/devices/0000:01:10.6"))

    def test_changing_a_number_other_than_zero_fails_with_ebusy(self, host: SimulatedTree) -> None:
        with pytest.raises(OSError, match="set 0 first") as refused:
            host.set_num_vfs(PF, 2)
        assert refused.value.errno == errno.EBUSY

    def test_more_vfs_than_the_card_supports_fails_with_erange(self, host: SimulatedTree) -> None:
        host.set_num_vfs(PF, 0)
        with pytest.raises(OSError, match="at most 4") as refused:
            host.set_num_vfs(PF, 5)
        assert refused.value.errno == errno.ERANGE

    @pytest.mark.parametrize("driver", [None, "vfio-pci"])
    def test_creating_vfs_without_the_driver_of_the_card_fails(
        self, host: SimulatedTree, driver: str | None
    ) -> None:
        host.bind(PF, driver)
        with pytest.raises(OSError, match="no driver") as refused:
            host.set_num_vfs(PF, 4)
        assert refused.value.errno == errno.ENOENT


class Killed(BaseException):
    """The process is killed here."""


@pytest.mark.parametrize("doing", ["_plug", "_link", "_write", "unplug"])
@pytest.mark.parametrize(("before", "wanted"), [(4, 0), (0, 4)])
@pytest.mark.parametrize("then", [0, 4])
def test_a_write_that_was_killed_at_any_moment_is_finished_by_the_next(  # noqa: PLR0917 - parameters
    host: SimulatedTree, monkeypatch: pytest.MonkeyPatch, doing: str, before: int, wanted: int, then: int
) -> None:
    do = getattr(SimulatedTree, doing)
    for survives in itertools.count():
        for count in (0, before):
            host.set_num_vfs(PF, count)
        left = itertools.count(survives, -1)

        def dying(*args: object, left: Iterator[int] = left, **more: object) -> object:
            if next(left) > 0:
                return do(*args, **more)
            raise Killed

        with monkeypatch.context() as killed, suppress(Killed):
            killed.setattr(SimulatedTree, doing, dying)
            host.set_num_vfs(PF, wanted)
        host.set_num_vfs(PF, then)
        assert (vfs_of(host, PF), host.num_vfs(PF), len(host.vfs(PF))) == (then, then, then)
        if next(left) >= 0:  # it lived to the end
            break


def test_unbinding_a_pf_removes_its_vfs_and_its_interface(host: SimulatedTree) -> None:
    host.bind(PF, "vfio-pci")
    assert vfs_of(host, PF) == 0
    assert not (host.root / f"bus/pci/devices/{PF}/net").exists()
    host.bind(PF, host.own_driver(PF))
    assert driver_of(host, PF) == "i40e"
    assert vfs_of(host, PF) == 0
    assert (host.root / f"bus/pci/devices/{PF}/net/enp1s0f0/address").exists()


@pytest.mark.parametrize(("address", "own"), [(PF, "i40e"), (VF, "iavf"), (ACCELERATOR, "nvidia")])
def test_each_kind_of_function_has_its_own_driver(host: SimulatedTree, address: PciAddress, own: str) -> None:
    assert driver_of(host, address) == host.own_driver(address) == own


class TestBuilding:
    def test_ports_are_spread_over_the_numa_nodes(self, tmp_path: Path) -> None:
        shape = HostShape(ports=4, vfs_per_port=2, accelerators=2, numa_nodes=2)
        host = build_host(tmp_path / "sys", shape, "node-1")
        tree = SysfsTree(host.root)
        nodes = [device.numa_node for device in Scanner(tree).scan().devices if device.parent is None]
        assert sorted(nodes) == [0, 0, 0, 1, 1, 1]
        assert [(cell.id, cell.socket, cell.cpus) for cell in read_numa_cells(tree)] == [
            (0, 0, [0, 1, 2, 3]),
            (1, 1, [4, 5, 6, 7]),
        ]

    def test_vfs_may_lie_on_a_later_bus(self, tmp_path: Path) -> None:
        host = build_host(tmp_path / "sys", HostShape(ports=2, vfs_per_port=256), "node-1")
        devices = Scanner(SysfsTree(host.root)).scan().devices
        assert len(devices) == 2 * 257 + 1
        assert {device.address.bus for device in devices if device.parent == PF} == {1, 2, 3}

    def test_fewer_vfs_than_possible_may_be_created(self, tmp_path: Path) -> None:
        host = build_host(tmp_path / "sys", HostShape(vfs_per_port=8, num_vfs=2), "node-1")
        pf = Scanner(SysfsTree(host.root)).look(PF)
        assert pf is not None
        assert (pf.total_vfs, pf.num_vfs) == (8, 2)

    def test_too_many_ports_for_the_buses_are_refused_and_nothing_is_built(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="fewer ports"):
            build_host(tmp_path / "sys", HostShape(ports=300, vfs_per_port=0), "node-1")
        assert not (tmp_path / "sys").exists()

    def test_an_existing_tree_is_not_overwritten(self, host: SimulatedTree) -> None:
        with pytest.raises(FileExistsError, match="already exists"):
            build_host(host.root, HostShape(), "node-1")

    def test_an_interrupted_build_starts_from_scratch(self, tmp_path: Path) -> None:
        (tmp_path / "sys.partial/bus/pci").mkdir(parents=True)
        build_host(tmp_path / "sys", HostShape(), "node-1")
        assert not (tmp_path / "sys.partial").exists()

    def test_two_hosts_have_different_macs(self, tmp_path: Path) -> None:
        hosts = [build_host(tmp_path / name, HostShape(), name) for name in ("node-1", "node-2")]
        macs = [
            device.mac
            for host in hosts
            for device in Scanner(SysfsTree(host.root)).scan().devices
            if device.mac
        ]
        assert len(set(macs)) == 4


def test_a_tree_that_is_not_simulated_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(NotSimulated, match=f"has no {MARKER}"):
        SimulatedTree(tmp_path)


def test_every_link_has_a_target_within_the_tree(host: SimulatedTree) -> None:
    links = [path for path in host.root.rglob("*") if path.is_symlink()]
    assert links
    assert all(link.resolve(strict=True).is_relative_to(host.root.resolve()) for link in links)
    assert json.loads((host.root / MARKER).read_text())["name"] == "node-1"
