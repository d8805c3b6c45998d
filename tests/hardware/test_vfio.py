"""Devices of a real host are handed over and restored, whatever happens meanwhile."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from portclaim.services.compute_agent.kernel import Kernel, KernelBlocked
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.uevents import Uevents, Watcher, wait_until
from tests.hardware.conftest import DEVICES, NUM_VFS, NVME, OTHER_PORT, PORT, VF, driver_of, run, vfs_of
from tests.hardware.deaths import dies_at
from tests.hardware.guests import PATIENCE
from tests.hardware.unprivileged import WITHOUT_CAPABILITIES
from tests.hardware.vfio_user import open_device

MakeStep = Callable[..., Step]


@pytest.fixture
def state_path(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def driver(conf: cfg.ConfigOpts, state_path: Path) -> Iterator[VfioDriver]:
    driver = VfioDriver(conf, state_path)
    driver.start()
    yield driver
    for row in driver.handover.handed_over():
        driver.handover.take_back(row.address)
    driver.stop()


def attach(driver: VfioDriver, step: Step) -> None:
    for device in step.devices:
        driver.prepare(step, device)
        driver.attach(step, device)


def detach(driver: VfioDriver, step: Step) -> None:
    for device in step.devices:
        driver.detach(step, device)


def test_the_scan_is_what_lspci_shows_without_bridges(scanner: Scanner) -> None:
    shown = {}
    for line in run("lspci", "-Dnmm").splitlines():
        address, class_id, vendor, product = (field.strip('"') for field in line.split()[:4])
        if not class_id.startswith("06"):
            shown[address] = class_id, vendor, product
    scanned = {
        str(device.address): (device.class_id[:4], device.vendor_id, device.product_id)
        for device in scanner.scan().devices
    }
    assert scanned == shown
    assert len(scanned) > 10


def test_a_ports_own_mac_is_known_when_another_is_in_use(scanner: Scanner) -> None:
    address = PciAddress.parse(OTHER_PORT)
    before = scanner.look(address)
    assert before is not None
    assert before.mac == "52:54:00:aa:00:02"
    run("ip", "link", "set", "enp2s0", "address", "02:00:00:00:00:09")
    try:
        assert scanner.look(address) == before
    finally:
        run("ip", "link", "set", "enp2s0", "address", before.mac)


def test_a_vf_goes_to_vfio_and_is_restored(driver: VfioDriver, make_step: MakeStep) -> None:
    step = make_step("attach", VF)
    attach(driver, step)
    assert driver_of(VF) == "vfio-pci"
    assert [(str(each.address), each.claim_id) for each in driver.attachments()] == [(VF, step.claim_id)]
    detach(driver, step)
    assert driver_of(VF) == "igbvf"
    assert driver.attachments() == []
    assert driver.problems() == {}


@pytest.mark.parametrize(("port", "own_driver"), [(PORT, "igb"), (NVME, "nvme")])
def test_a_port_is_handed_over_and_restored_with_its_vfs(
    driver: VfioDriver, make_step: MakeStep, port: str, own_driver: str
) -> None:
    before = vfs_of(port)
    step = make_step("attach", port)
    attach(driver, step)
    assert (driver_of(port), vfs_of(port)) == ("vfio-pci", [])
    detach(driver, step)
    assert (driver_of(port), vfs_of(port)) == (own_driver, before)
    assert len(before) == NUM_VFS[port]
    assert driver.problems() == {}


def test_a_port_is_restored_with_as_many_vfs_as_device_spec_asks_for(
    conf: cfg.ConfigOpts, driver: VfioDriver, make_step: MakeStep, tmp_path: Path
) -> None:
    entry = {"address": OTHER_PORT, "num_vfs": 3}
    conf.set_override("device_spec", [json.dumps(entry)], "pci")
    driver = VfioDriver(conf, tmp_path)
    driver.start()
    step = make_step("attach", OTHER_PORT)
    attach(driver, step)
    detach(driver, step)
    assert len(vfs_of(OTHER_PORT)) == 3
    driver.stop()
    conf.clear_override("device_spec", "pci")  # oslo.config keeps it with the group, which all tests share


class TestRefusedHandOver:
    def test_the_way_of_the_default_route(self, driver: VfioDriver, make_step: MakeStep) -> None:
        run("ip", "link", "set", "enp2s0", "up")
        run("ip", "route", "add", "default", "dev", "enp2s0", "metric", "999")
        try:
            with pytest.raises(DriverError, match="enp2s0 has the default route"):
                attach(driver, make_step("attach", OTHER_PORT))
        finally:
            run("ip", "link", "set", "enp2s0", "down")  # with all of its routes, also advertised ones
        assert driver_of(OTHER_PORT) == "igb"

    def test_a_member_of_a_bridge(self, driver: VfioDriver, make_step: MakeStep) -> None:
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "link", "set", "enp2s0", "master", "br0")
        try:
            with pytest.raises(DriverError, match="br0 is built on enp2s0"):
                attach(driver, make_step("attach", OTHER_PORT))
        finally:
            run("ip", "link", "del", "br0")
        assert driver_of(OTHER_PORT) == "igb"

    def test_a_port_whose_interface_a_container_has(self, driver: VfioDriver, make_step: MakeStep) -> None:
        run("ip", "netns", "add", "container")
        run("ip", "link", "set", "enp2s0", "netns", "container")
        try:
            with pytest.raises(DriverError, match="is in another network namespace"):
                attach(driver, make_step("attach", OTHER_PORT))
        finally:
            run("ip", "netns", "exec", "container", "ip", "link", "set", "enp2s0", "netns", "1")
            run("ip", "netns", "del", "container")
        assert driver_of(OTHER_PORT) == "igb"

    def test_the_controller_of_a_disk_that_is_mounted(self, driver: VfioDriver, make_step: MakeStep) -> None:
        root = Path("/").stat().st_dev
        place = Path(f"/sys/dev/block/{os.major(root)}:{os.minor(root)}").resolve()
        address = next(part.name for part in place.parents if (DEVICES / part.name).exists())
        with pytest.raises(DriverError, match=f"{place.name} is mounted on /"):
            attach(driver, make_step("attach", address))
        assert driver_of(address) == "virtio-pci"

    def test_a_port_whose_vf_an_instance_has(self, driver: VfioDriver, make_step: MakeStep) -> None:
        step = make_step("attach", VF)
        attach(driver, step)
        with pytest.raises(DriverError, match=f"{VF} is already in instance {step.instance_id}"):
            attach(driver, make_step("attach", PORT))
        assert (driver_of(PORT), driver_of(VF)) == ("igb", "vfio-pci")

    def test_a_port_whose_vf_some_process_has_open(self, driver: VfioDriver, make_step: MakeStep) -> None:
        address = PciAddress.parse(VF)
        driver.kernel.bind_to_vfio(address)
        with open_device(VF), pytest.raises(DriverError, match=f"{VF} is open in a process"):
            attach(driver, make_step("attach", PORT))
        assert driver_of(PORT) == "igb"
        driver.kernel.return_to_driver(address, None, None)

    def test_a_function_whose_group_cannot_go(self, driver: VfioDriver, make_step: MakeStep) -> None:
        with pytest.raises(DriverError, match=r"0000:00:1f\.2 shares its IOMMU group with 0000:00:1f"):
            attach(driver, make_step("attach", "0000:00:1f.2"))
        assert driver_of("0000:00:1f.2") == "ahci"


def test_a_device_that_a_guest_has_open_stays(driver: VfioDriver, make_step: MakeStep) -> None:
    step = make_step("attach", VF)
    attach(driver, step)
    with open_device(VF):
        with pytest.raises(DriverError, match="still open in a guest"):
            detach(driver, step)
        assert driver_of(VF) == "vfio-pci"
        assert [str(each.address) for each in driver.attachments()] == [VF]
    detach(driver, step)
    assert driver_of(VF) == "igbvf"


def test_a_write_that_waits_for_a_guest_holds_nobody_up(
    conf: cfg.ConfigOpts, driver: VfioDriver, scanner: Scanner
) -> None:
    """The kernel's hard case: VFs are switched off under a guest that has one and does not let go."""
    port, vf = PciAddress.parse(PORT), PciAddress.parse(VF)
    kernel = Kernel(SysfsTree(), timeout=5.0)
    kernel.bind_to_vfio(vf)
    with open_device(VF):
        with pytest.raises(KernelBlocked, match="sriov_numvfs"):
            kernel.set_num_vfs(port, 0)
        assert list(kernel.blocked()) == [port]
        with pytest.raises(KernelBlocked):
            kernel.set_num_vfs(port, 2)
        scan = scanner.scan()  # which does not hang, and does not take the VF for a plain device
        assert {str(device.address): device.dev_type for device in scan.devices}[VF] == "type-VF"
        assert vf in scan.problems or port in scan.problems
    assert wait_until(lambda: not kernel.blocked(), PATIENCE)
    assert vfs_of(PORT) == []


@pytest.mark.parametrize("address", [VF, PORT])
def test_an_agent_killed_between_any_two_writes_finishes_or_undoes(
    conf: cfg.ConfigOpts, make_step: MakeStep, state_path: Path, address: str
) -> None:
    """Killed before the first write, before the second, ... until it lives to the end."""
    before = driver_of(address), vfs_of(address)
    step = make_step("attach", address)
    deaths = 0
    while dies_at(deaths + 1, "vfio", state_path, step):
        deaths += 1
        successor = VfioDriver(conf, state_path)
        successor.start()
        if successor.attachments():
            assert driver_of(address) == "vfio-pci"
            detach(successor, step)
        assert (driver_of(address), vfs_of(address)) == before
        assert successor.problems() == {}
        successor.stop()
    assert deaths >= 6
    assert (driver_of(address), vfs_of(address)) == before


WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


def test_it_takes_no_capability(conf: cfg.ConfigOpts, state_path: Path, make_step: MakeStep) -> None:
    """Being root is enough, as in the systemd unit: the files of sysfs and of vfio are root's."""
    step = make_step("attach", PORT).model_dump_json()
    run(*WITHOUT_RIGHTS, sys.executable, "-c", WITHOUT_CAPABILITIES, str(state_path), step)
    assert driver_of(PORT) == "igb"
    assert len(vfs_of(PORT)) == NUM_VFS[PORT]


def test_vfs_that_come_and_go_are_told_at_once(scanner: Scanner) -> None:
    told = threading.Event()
    seen: list[int] = []

    def changed(_named: object) -> None:
        seen.append(sum(device.parent is not None for device in scanner.scan().devices))
        told.set()

    watcher = Watcher(Uevents(), changed)
    watcher.start()
    (DEVICES / OTHER_PORT / "sriov_numvfs").write_text("7")
    assert wait_until(lambda: sum(NUM_VFS.values()) + 7 in seen, PATIENCE)
    (DEVICES / OTHER_PORT / "sriov_numvfs").write_text("0")
    assert wait_until(lambda: seen[-1] == sum(NUM_VFS.values()), PATIENCE)
    watcher.end()
