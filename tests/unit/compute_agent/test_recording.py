"""A recording of a host replaces the machine in tests, and contains nothing that identifies the machine."""

from pathlib import Path

import pytest

from portclaim.services.compute_agent.numa import read_numa_cells
from portclaim.services.compute_agent.recording import Recording, record
from portclaim.services.compute_agent.scanner import Scan, Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree

# Linux 6.1 on a q35: two 82576 ports, the first with 4 of 7 VFs; an NVMe with 2 of 4; an e1000e.
RECORDED = Path(__file__).parent / "recorded/igb-and-nvme.json"


@pytest.fixture
def machine(tmp_path: Path) -> SysfsTree:
    Recording.from_json(RECORDED.read_text()).replay(tmp_path / "sys")
    return SysfsTree(tmp_path / "sys")


def replayed(recording: Recording, root: Path) -> SysfsTree:
    Recording.from_json(recording.as_json()).replay(root)
    return SysfsTree(root)


def test_a_scan_of_a_replayed_host_equals_that_of_the_recorded_one(
    host: SimulatedTree, tmp_path: Path
) -> None:
    original = SysfsTree(host.root)
    copy = replayed(record(original, identifying=True), tmp_path / "copy")
    assert Scanner(copy).scan() == Scanner(original).scan()
    assert read_numa_cells(copy) == read_numa_cells(original)


def test_serial_numbers_and_macs_are_left_out_unless_asked_for(host: SimulatedTree, tmp_path: Path) -> None:
    pf = Scanner(SysfsTree(host.root)).scan().devices[0]
    told = record(SysfsTree(host.root))
    assert pf.mac not in told.as_json()
    copy = Scanner(replayed(told, tmp_path / "copy")).scan().devices[0]
    assert (copy.mac, copy.serial) == (None, None)
    assert (copy.address, copy.netdev, copy.total_vfs) == (pf.address, pf.netdev, pf.total_vfs)


def test_an_interface_named_by_its_mac_gets_another_name(host: SimulatedTree) -> None:
    net = (host.root / "bus/pci/devices/0000:01:00.0").resolve() / "net"
    (net / "enp1s0f0").rename(net / "enx525400aa0001")
    assert "525400aa0001" not in record(SysfsTree(host.root)).as_json()
    assert "enx525400aa0001" in record(SysfsTree(host.root), identifying=True).as_json()


def test_a_file_that_is_not_a_recording_is_refused() -> None:
    with pytest.raises(ValueError, match="no recording of format 1"):
        Recording.from_json('{"format": 2}')


class TestRealMachine:
    def test_its_devices_are_those_of_lspci_without_bridges(self, machine: SysfsTree) -> None:
        assert [each for each in shown(Scanner(machine).scan()) if not each.startswith("0000:00")] == [
            "0000:01:00.0 type-PF 8086:10c9 igb enp1s0",
            "0000:01:10.0 type-VF 8086:10ca igbvf enp1s0v0",
            "0000:01:10.2 type-VF 8086:10ca igbvf enp1s0v1",
            "0000:01:10.4 type-VF 8086:10ca igbvf enp1s0v2",
            "0000:01:10.6 type-VF 8086:10ca igbvf enp1s0v3",
            "0000:02:00.0 type-PF 8086:10c9 igb enp2s0",
            "0000:03:00.0 type-PF 1b36:0010 nvme None",
            "0000:03:00.1 type-VF 1b36:0010 None None",
            "0000:03:00.2 type-VF 1b36:0010 None None",
            "0000:04:00.0 type-PCI 8086:10d3 e1000e enp4s0",
        ]

    def test_its_vfs_are_at_the_calculated_addresses(self, machine: SysfsTree) -> None:
        scan = Scanner(machine).scan()
        assert scan.problems == {}
        counts = {str(device.address): (device.num_vfs, device.total_vfs) for device in scan.devices}
        assert (counts["0000:01:00.0"], counts["0000:02:00.0"]) == ((4, 7), (0, 7))
        assert counts["0000:03:00.0"] == (2, 4)

    def test_a_vf_that_lost_its_physfn_is_still_a_vf(self, machine: SysfsTree) -> None:
        (machine.root / "bus/pci/devices/0000:03:00.1/physfn").unlink()
        scan = Scanner(machine).scan()
        assert {str(address) for address in scan.problems} == {"0000:03:00.0", "0000:03:00.1"}
        assert "0000:03:00.1 type-VF 1b36:0010 None None" in shown(scan)

    def test_a_recording_of_a_replayed_host_is_the_same(self, machine: SysfsTree, tmp_path: Path) -> None:
        copy = replayed(record(machine), tmp_path / "copy")
        assert Scanner(copy).scan() == Scanner(machine).scan()


def shown(scan: Scan) -> list[str]:
    return [
        f"{device.address} {device.dev_type.value} {device.vendor_id}:{device.product_id} "
        f"{device.driver} {device.netdev}"
        for device in scan.devices
    ]
