"""Scans of hosts, intact ones and broken ones."""

import logging
import shutil
from pathlib import Path

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.device import DeviceType
from portclaim.services.compute_agent.scanner import Scan, ScanError, Scanner
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree

PF = PciAddress.parse("0000:01:00.0")
VF0 = PciAddress.parse("0000:01:10.0")
VF1 = PciAddress.parse("0000:01:10.2")


def place(host: SimulatedTree, address: PciAddress) -> Path:
    return (host.root / "bus/pci/devices" / str(address)).resolve()


def by_address(scan: Scan) -> dict[str, str]:
    return {str(device.address): device.dev_type.value for device in scan.devices}


def test_a_scan_shows_all_functions_but_bridges_in_order_of_address(scanner: Scanner) -> None:
    assert by_address(scanner.scan()) == {
        "0000:01:00.0": "type-PF",
        "0000:01:10.0": "type-VF",
        "0000:01:10.2": "type-VF",
        "0000:01:10.4": "type-VF",
        "0000:01:10.6": "type-VF",
        "0000:02:00.0": "type-PF",
        "0000:02:10.0": "type-VF",
        "0000:02:10.2": "type-VF",
        "0000:02:10.4": "type-VF",
        "0000:02:10.6": "type-VF",
        "0000:03:00.0": "type-PCI",
    }


def test_a_pf_is_shown_with_all_its_facts(scanner: Scanner) -> None:
    pf = scanner.scan().devices[0]
    assert (pf.vendor_id, pf.product_id, pf.vf_product_id, pf.class_id) == ("8086", "1572", "154c", "020000")
    assert (pf.numa_node, pf.driver, pf.netdev) == (0, "i40e", "enp1s0f0")
    assert (pf.total_vfs, pf.num_vfs, pf.parent) == (4, 4, None)
    assert pf.iommu_group == 0x100
    assert pf.mac is not None
    assert pf.mac.startswith("02:")
    assert pf.serial is not None
    assert len(pf.serial) == 12


def test_a_vf_names_its_pf(scanner: Scanner) -> None:
    vf = scanner.scan().devices[1]
    assert (vf.dev_type, vf.parent, vf.product_id, vf.driver) == (DeviceType.VF, PF, "154c", "iavf")


def test_a_vf_has_the_number_of_the_link_of_its_pf(tmp_path: Path) -> None:
    tree = build_host(tmp_path / "sys", HostShape(ports=1, vfs_per_port=12, accelerators=0), "node-1")
    pf, *vfs = Scanner(SysfsTree(tree.root)).scan().devices
    assert pf.vf_num is None
    assert [vf.vf_num for vf in vfs] == list(range(12))


def test_a_vf_that_has_swapped_its_link_with_another_has_the_number_of_the_other(
    host: SimulatedTree, scanner: Scanner
) -> None:
    scanner.scan()
    for link, vf in (("virtfn0", VF1), ("virtfn1", VF0)):
        (place(host, PF) / link).unlink()
        (place(host, PF) / link).symlink_to(f"../{vf}")
    assert [vf.vf_num for vf in scanner.rescan([VF0]).devices[1:3]] == [1, 0]


def test_a_pf_without_vfs_is_a_pf(host: SimulatedTree, scanner: Scanner) -> None:
    host.set_num_vfs(PF, 0)
    pf = scanner.look(PF)
    assert pf is not None
    assert (pf.dev_type, pf.total_vfs, pf.num_vfs) == (DeviceType.PF, 4, 0)


def test_a_function_whose_driver_allows_no_vf_is_a_plain_device(
    host: SimulatedTree, scanner: Scanner
) -> None:
    host.set_num_vfs(PF, 0)
    (place(host, PF) / "sriov_totalvfs").write_text("0\n")
    assert by_address(scanner.scan())[str(PF)] == "type-PCI"


def test_sriov_numvfs_is_not_read_because_its_reader_may_hang(host: SimulatedTree, scanner: Scanner) -> None:
    (place(host, PF) / "sriov_numvfs").unlink()
    pf = scanner.look(PF)
    assert pf is not None
    assert pf.num_vfs == 4


def test_a_numa_node_of_minus_one_means_none(host: SimulatedTree, scanner: Scanner) -> None:
    (place(host, PF) / "numa_node").write_text("-1\n")
    assert scanner.scan().devices[0].numa_node is None


def test_missing_optional_files_are_not_an_error(host: SimulatedTree, scanner: Scanner) -> None:
    for name in ("numa_node", "class", "driver", "iommu_group", "vpd"):
        (place(host, PF) / name).unlink()
    shutil.rmtree(place(host, PF) / "net")
    pf = scanner.scan().devices[0]
    facts = (pf.numa_node, pf.class_id, pf.driver, pf.iommu_group, pf.serial, pf.netdev, pf.mac)
    assert facts == (None,) * 7


def test_a_function_is_left_out_while_it_has_no_ids(host: SimulatedTree, scanner: Scanner) -> None:
    gpu = PciAddress.parse("0000:03:00.0")
    (place(host, gpu) / "vendor").unlink()
    assert str(gpu) not in by_address(scanner.scan())
    assert scanner.look(gpu) is None
    (place(host, gpu) / "vendor").write_text("0x10de\n")
    assert str(gpu) in by_address(scanner.scan())


def test_an_address_that_cannot_be_parsed_is_left_out_with_one_warning(
    host: SimulatedTree, scanner: Scanner, caplog: pytest.LogCaptureFixture
) -> None:
    (host.root / "bus/pci/devices/pci-odd").symlink_to(place(host, PF))
    with caplog.at_level(logging.WARNING):
        before = scanner.scan()
        assert scanner.scan() == before
    assert len(before.devices) == 11
    assert [record for record in caplog.records if "pci-odd" in record.getMessage()] == caplog.records[:1]


def test_addresses_may_have_32_bit_domains(tmp_path: Path) -> None:
    shape = HostShape(ports=1, vfs_per_port=2, accelerators=0, domain=0xFFFF0001)
    tree = build_host(tmp_path / "sys", shape, "node-1")
    devices = Scanner(SysfsTree(tree.root)).scan().devices
    assert [str(device.address) for device in devices] == [
        "ffff0001:01:00.0",
        "ffff0001:01:10.0",
        "ffff0001:01:10.2",
    ]
    assert devices[1].parent == devices[0].address


class TestNetworkInterface:
    def test_a_function_with_several_interfaces_is_named_by_its_first_port(
        self, host: SimulatedTree, scanner: Scanner
    ) -> None:
        second = place(host, PF) / "net/aaa0"
        second.mkdir()
        (second / "dev_port").write_text("1\n")
        assert scanner.scan().devices[0].netdev == "enp1s0f0"

    def test_a_mac_that_was_set_by_hand_is_not_reported(self, host: SimulatedTree, scanner: Scanner) -> None:
        (place(host, PF) / "net/enp1s0f0/addr_assign_type").write_text("3\n")
        assert scanner.scan().devices[0].mac is None

    def test_the_permanent_mac_from_the_kernel_is_reported_instead(self, host: SimulatedTree) -> None:
        net = host.root / "bus/pci/devices/0000:01:00.0/net/enp1s0f0"
        (net / "addr_assign_type").write_text("3\n")
        told = Scanner(SysfsTree(host.root), lambda: {"enp1s0f0": "02:00:00:00:00:09"}).look(PF)
        assert told is not None
        assert told.mac == "02:00:00:00:00:09"

    def test_the_permanent_mac_of_a_bond_member_is_reported(
        self, host: SimulatedTree, scanner: Scanner
    ) -> None:
        net = place(host, PF) / "net/enp1s0f0"
        (net / "addr_assign_type").write_text("3\n")
        (net / "bonding_slave").mkdir()
        (net / "bonding_slave/perm_hwaddr").write_text("3c:fd:fe:00:00:01\n")
        assert scanner.scan().devices[0].mac == "3c:fd:fe:00:00:01"


def test_the_serial_number_is_read_once_until_the_device_is_plugged_in_again(
    host: SimulatedTree, scanner: Scanner
) -> None:
    first = scanner.scan().devices[0].serial
    vpd = place(host, PF) / "vpd"
    other = vpd.read_bytes().replace(first.encode(), b"X" * 12)
    vpd.write_bytes(other)
    assert scanner.scan().devices[0].serial == first

    plugged = place(host, PF)
    plugged.rename(plugged.with_name("old"))
    shutil.copytree(plugged.with_name("old"), plugged, symlinks=True)
    assert scanner.scan().devices[0].serial == "X" * 12


class TestHalfLinked:
    """The links between PF and VF while an unbind is blocked."""

    def test_a_vf_without_physfn_is_still_a_vf(self, host: SimulatedTree, scanner: Scanner) -> None:
        (place(host, VF0) / "physfn").unlink()
        (place(host, PF) / "virtfn0").unlink()
        scan = scanner.scan()
        assert by_address(scan)[str(VF0)] == "type-VF"
        assert (scan.devices[1].parent, scan.devices[1].vf_num) == (PF, None)
        assert scan.problems == {VF0: f"the kernel shows no physfn of this VF of {PF}"}

    def test_a_vf_that_its_pf_does_not_list_is_a_problem(self, host: SimulatedTree, scanner: Scanner) -> None:
        (place(host, PF) / "virtfn0").unlink()
        assert scanner.scan().problems == {VF0: f"PF {PF} does not list this VF"}

    def test_a_pf_that_lists_missing_vfs_is_a_problem(self, host: SimulatedTree, scanner: Scanner) -> None:
        host.unplug(VF0)
        host.unplug(VF1)
        scan = scanner.scan()
        assert scan.problems == {PF: f"this PF lists VFs that do not exist or do not link back: {VF0}, {VF1}"}
        assert str(VF0) not in by_address(scan)

    @pytest.mark.parametrize("pf_is", ["gone", "a plain device"])
    def test_a_vf_without_a_pf_is_left_out(self, host: SimulatedTree, scanner: Scanner, pf_is: str) -> None:
        if pf_is == "gone":
            (host.root / "bus/pci/devices" / str(PF)).unlink()
        else:
            for link in place(host, PF).glob("virtfn*"):
                link.unlink()
            (place(host, PF) / "sriov_totalvfs").unlink()
        assert str(VF0) not in by_address(scanner.scan())


def test_a_directory_that_is_not_sysfs_is_an_error_and_not_an_empty_host(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="does not exist"):
        Scanner(SysfsTree(tmp_path)).scan()


def test_an_error_other_than_a_missing_file_is_raised(host: SimulatedTree, scanner: Scanner) -> None:
    vendor = place(host, PF) / "vendor"
    vendor.unlink()
    vendor.symlink_to("vendor")
    with pytest.raises(OSError, match="symbolic links"):
        scanner.scan()
