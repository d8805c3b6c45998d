"""What stands in the way of a device is told before anybody claims it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from portclaim.cli.main import main
from portclaim.common.pci.address import PciAddress
from portclaim.services.compute_agent.obstacles import obstacles
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulated_host import HostShape, build_host
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree

PF, VF, VF2, OTHER_PF, CARD = (
    PciAddress.parse(text)
    for text in ("0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "0000:02:00.0", "0000:03:00.0")
)


def found(host: SimulatedTree) -> dict[PciAddress, list[str]]:
    tree = SysfsTree(host.root)
    return {address: list(reasons) for address, reasons in obstacles(tree, Scanner(tree).scan()).items()}


def place(host: SimulatedTree, address: PciAddress) -> Path:
    return (host.root / "bus/pci/devices" / str(address)).resolve()


def join_group(host: SimulatedTree, newcomer: PciAddress, member: PciAddress) -> None:
    group = (place(host, member) / "iommu_group").resolve()
    (group / "devices" / str(newcomer)).symlink_to(place(host, newcomer))


def test_a_host_that_isolates_all_functions_has_none(host: SimulatedTree) -> None:
    assert found(host) == {}


def test_a_device_without_an_iommu_group(host: SimulatedTree) -> None:
    (place(host, CARD) / "iommu_group").unlink()
    assert found(host) == {CARD: ["is in no IOMMU group: enable the IOMMU in firmware and kernel"]}


def test_a_device_that_shares_its_group_with_one_that_the_host_uses(host: SimulatedTree) -> None:
    join_group(host, OTHER_PF, CARD)
    reason = f"shares its IOMMU group with {OTHER_PF}, which this host uses with driver i40e"
    assert found(host) == {CARD: [reason]}
    host.bind(OTHER_PF, "vfio-pci")
    assert found(host) == {}


def test_a_tree_that_does_not_list_the_members_of_its_groups(host: SimulatedTree) -> None:
    """As in a recording of another machine."""
    link = place(host, CARD) / "iommu_group"
    link.unlink()
    link.symlink_to((place(host, OTHER_PF) / "iommu_group").resolve())
    shutil.rmtree(host.root / "kernel/iommu_groups")
    assert found(host) == {
        CARD: [f"shares its IOMMU group with {OTHER_PF}, which this host uses with driver i40e"],
        OTHER_PF: [f"shares its IOMMU group with {CARD}, which this host uses with driver nvidia"],
    }


def test_a_port_that_the_host_uses_and_its_use_of_a_vf(host: SimulatedTree) -> None:
    (place(host, PF) / "net/enp1s0f0/upper_vlan7").mkdir()
    (place(host, OTHER_PF) / "net/enp2s0f0/master").symlink_to("../../../../bond0")
    (place(host, VF2) / "net").mkdir()
    assert found(host) == {
        PF: [
            "is used by this host: vlan7 is built on enp1s0f0",
            f"{VF2} is in use: its network interface is in another network namespace",
        ],
        VF2: ["is in use: its network interface is in another network namespace"],
        OTHER_PF: ["is used by this host: bond0 is built on enp2s0f0"],
    }


def test_a_disk_that_the_host_uses(host: SimulatedTree) -> None:
    disk = place(host, CARD) / "nvme/nvme0/nvme0n1"
    (disk / "holders/dm-0").mkdir(parents=True)
    (host.root / "class/block").mkdir(parents=True)
    (host.root / "class/block/nvme0n1").symlink_to(Path("../..") / disk.relative_to(host.root))
    assert found(host) == {CARD: ["is used by this host: dm-0 is built on nvme0n1"]}


def test_the_vfs_of_a_port_that_is_on_vfio(host: SimulatedTree) -> None:
    """vfio-pci can make VFs too, so they may exist although no driver of the host serves them."""
    driver = place(host, PF) / "driver"
    driver.unlink()
    driver.symlink_to(Path("../../../../bus/pci/drivers/vfio-pci"))
    reasons = found(host)
    assert sorted(reasons) == [VF, VF2, PciAddress.parse("0000:01:10.4"), PciAddress.parse("0000:01:10.6")]
    assert reasons[VF] == [
        f"its PF {PF} is on vfio-pci, so no driver of this host serves its VFs: bind the PF to its own driver"
    ]


def test_a_device_that_no_entry_can_name(tmp_path: Path) -> None:
    host = build_host(tmp_path / "vmd", HostShape(ports=0, domain=0x10000), "vmd")
    [reasons] = found(host).values()
    assert reasons == ["device_spec cannot name PCI domains above ffff"]


class TestCommands:
    @pytest.fixture
    def config_file(self, tmp_path: Path) -> Path:
        file = tmp_path / "portclaim.conf"
        file.write_text('[pci]\ndevice_spec = {"vendor_id": "10de"}\n')
        return file

    def test_host_scan_shows_them(self, host: SimulatedTree, config_file: Path) -> None:
        join_group(host, OTHER_PF, CARD)
        scan = ["--config-file", str(config_file), "host", "scan", "--sysfs-root", str(host.root)]
        rows = json.loads(CliRunner().invoke(main, [*scan, "--output", "json"]).stdout)
        shown = {row["address"]: row["obstacles"] for row in rows if row["obstacles"]}
        assert list(shown) == [str(CARD)]
        assert str(OTHER_PF) in shown[str(CARD)][0]
        table = CliRunner(env={"COLUMNS": "400"}).invoke(main, scan).stdout
        assert "shares its IOMMU group with 0000:02:00.0" in table

    def test_config_check_warns_of_them(self, host: SimulatedTree, config_file: Path) -> None:
        join_group(host, OTHER_PF, CARD)
        check = ["config", "check", str(config_file), "--sysfs-root", str(host.root), "--output", "json"]
        [row] = json.loads(CliRunner().invoke(main, check).stdout)
        assert (row["verdict"], row["takes"]) == ("warning", [str(CARD)])
        assert row["warnings"] == [
            f"{CARD}: shares its IOMMU group with {OTHER_PF}, which this host uses with driver i40e"
        ]

    def test_config_check_does_not_warn_of_devices_that_no_entry_takes(
        self, host: SimulatedTree, config_file: Path
    ) -> None:
        shutil.rmtree(place(host, PF) / "net")
        (place(host, PF) / "net").mkdir()
        check = ["config", "check", str(config_file), "--sysfs-root", str(host.root), "--output", "json"]
        [row] = json.loads(CliRunner().invoke(main, check).stdout)
        assert row["verdict"] == "ok"
