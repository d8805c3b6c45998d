"""The rules that forbid to hand over a device."""

import shutil
from pathlib import Path

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.host_use import check_group, check_not_used_by_host, group_members
from portclaim.services.compute_agent.netlink import default_route_interfaces
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree

PF, VF, VF2 = (PciAddress.parse(text) for text in ("0000:01:00.0", "0000:01:10.0", "0000:01:10.2"))


@pytest.fixture
def tree(host: SimulatedTree) -> SysfsTree:
    return SysfsTree(host.root)


def join_group(host: SimulatedTree, newcomer: PciAddress, member: PciAddress) -> None:
    devices = host.root / "bus/pci/devices"
    group = (devices / str(member) / "iommu_group").resolve()
    (group / "devices" / str(newcomer)).symlink_to((devices / str(newcomer)).resolve())


def test_a_bridge_in_the_iommu_group_does_not_prevent_a_hand_over(
    host: SimulatedTree, tree: SysfsTree
) -> None:
    bridge = next(
        path.name for path in Path(host.root / "bus/pci/devices").iterdir() if path.name[5:7] == "00"
    )
    join_group(host, PciAddress.parse(bridge), VF)
    assert group_members(tree, VF) == set()
    check_group(tree, VF, set(), set())


@pytest.mark.parametrize("driver", [None, "vfio-pci", "pci-stub"])
def test_a_device_in_the_group_that_the_host_does_not_use_does_not_prevent_it(
    host: SimulatedTree, tree: SysfsTree, driver: str | None
) -> None:
    join_group(host, VF2, VF)
    host.bind(VF2, driver)
    check_group(tree, VF, set(), set())


def test_a_device_in_the_group_that_is_handed_over_too_does_not_prevent_it(
    host: SimulatedTree, tree: SysfsTree
) -> None:
    join_group(host, VF2, VF)
    with pytest.raises(DriverError, match="which this host uses with driver iavf"):
        check_group(tree, VF, set(), set())
    check_group(tree, VF, {VF2}, set())


def test_a_member_of_a_bond_is_refused_and_the_bond_is_named(host: SimulatedTree, tree: SysfsTree) -> None:
    net = (host.root / "bus/pci/devices" / str(PF)).resolve() / "net/enp1s0f0"
    (net / "master").symlink_to("../../../../bond0")
    with pytest.raises(DriverError, match="bond0 is built on enp1s0f0"):
        check_not_used_by_host(tree, PF, set())


def test_a_device_whose_interface_is_in_another_network_namespace_is_refused(
    host: SimulatedTree, tree: SysfsTree
) -> None:
    net = (host.root / "bus/pci/devices" / str(PF)).resolve() / "net"
    shutil.rmtree(net)
    check_not_used_by_host(tree, PF, set())  # a driver without interfaces
    net.mkdir()
    with pytest.raises(DriverError, match="is in another network namespace"):
        check_not_used_by_host(tree, PF, set())


def test_a_port_that_the_host_does_not_use_may_be_handed_over(tree: SysfsTree) -> None:
    check_not_used_by_host(tree, PF, {1, 2, 3})


def test_the_default_routes_are_read_from_the_kernel() -> None:
    """Compared with procfs, which shows less: only IPv4 and only the main table."""
    shown = set()
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        name, destination, _, _, _, _, _, mask = line.split()[:8]
        if destination == mask == "00000000":
            shown.add(int(Path(f"/sys/class/net/{name}/ifindex").read_text()))
    assert shown <= default_route_interfaces()
