"""A libvirt guest gets a VF and a whole port, drives them, and gives them back."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import DriverError, InstanceNotFound
from portclaim.services.compute_agent.drivers.deadline import Deadline, NoAnswer
from portclaim.services.compute_agent.uevents import wait_until
from tests.hardware.conftest import OTHER_PORT, PORT, VF, driver_of, run, vfs_of
from tests.hardware.deaths import dies_at
from tests.hardware.guests import PATIENCE, Guest

libvirt = pytest.importorskip("libvirt")
from portclaim.services.compute_agent.drivers.libvirt import GROUP, OPTIONS, LibvirtDriver  # noqa: E402 - only where libvirt is

MakeStep = Callable[..., Step]


@pytest.fixture(autouse=True)
def patient(conf: cfg.ConfigOpts) -> Iterator[None]:
    """An emulated guest takes its time."""
    conf.register_opts(OPTIONS, GROUP)
    for name in ("timeout", "detach_timeout"):
        conf.set_override(name, PATIENCE, "libvirt")
    yield
    for name in ("timeout", "detach_timeout"):
        conf.clear_override(name, "libvirt")  # oslo.config keeps it with the group, which all tests share


@pytest.fixture
def driver(conf: cfg.ConfigOpts, tmp_path: Path, connection: object) -> Iterator[LibvirtDriver]:
    driver = LibvirtDriver(conf, tmp_path)
    driver.start()
    yield driver
    driver.stop()


def attach(driver: LibvirtDriver, step: Step) -> None:
    driver.prepare(step, step.devices[0])
    driver.attach(step, step.devices[0])


def test_a_vf_and_then_the_whole_port_go_to_a_running_guest_and_are_restored(
    driver: LibvirtDriver, guest: Guest, make_step: MakeStep
) -> None:
    before = vfs_of(PORT)
    for address, own_driver in ((VF, "igbvf"), (PORT, "igb")):
        step = make_step("attach", address, instance_id=guest.uuid)
        attach(driver, step)
        attach(driver, step)  # again: nothing more
        assert [(str(each.address), each.claim_id) for each in driver.attachments()] == [
            (address, step.claim_id)
        ]
        assert driver_of(address) == "vfio-pci"
        assert guest.says("GUEST sees 1")
        driver.detach(step, step.devices[0])
        assert guest.says("GUEST sees 0")
        assert (driver_of(address), driver.attachments(), driver.problems()) == (own_driver, [], {})
        assert vfs_of(PORT) == before


def test_what_libvirt_gave_by_another_hand_is_neither_taken_nor_given_again(
    driver: LibvirtDriver, make_guest: Callable[..., Guest], make_step: MakeStep
) -> None:
    other = make_guest("other", running=False)
    bus, slot = VF[5:7], VF[8:10]
    other.domain.attachDeviceFlags(
        f"<hostdev mode='subsystem' type='pci' managed='yes'><source>"
        f"<address domain='0' bus='0x{bus}' slot='0x{slot}' function='0'/></source></hostdev>",
        libvirt.VIR_DOMAIN_AFFECT_LIVE,
    )
    assert [(str(each.address), each.instance_id, each.claim_id) for each in driver.attachments()] == [
        (VF, other.uuid, None)
    ]
    step = make_step("attach", VF, instance_id=other.uuid)
    with pytest.raises(DriverError, match=f"{VF} is already in instance {other.uuid}"):
        attach(driver, step)
    with pytest.raises(DriverError, match=f"{VF} is already in instance"):
        attach(driver, make_step("attach", PORT, instance_id=other.uuid))
    driver.detach(step, step.devices[0])
    assert (driver_of(VF), driver_of(PORT)) == ("vfio-pci", "igb")
    other.domain.destroy()
    assert wait_until(lambda: driver_of(VF) == "igbvf", PATIENCE)


def test_the_devices_of_an_instance_that_is_not_here_are_only_prepared(
    driver: LibvirtDriver, make_step: MakeStep
) -> None:
    step = make_step("attach", OTHER_PORT)
    with pytest.raises(InstanceNotFound, match="is not on this host"):
        attach(driver, step)
    assert driver_of(OTHER_PORT) == "vfio-pci"
    driver.detach(step, step.devices[0])
    assert driver_of(OTHER_PORT) == "igb"


def test_a_guest_that_is_destroyed_leaves_its_port_to_be_restored(
    driver: LibvirtDriver, make_guest: Callable[..., Guest], make_step: MakeStep
) -> None:
    before = vfs_of(PORT)
    doomed = make_guest("doomed", running=False)
    step = make_step("attach", PORT, instance_id=doomed.uuid)
    attach(driver, step)
    assert vfs_of(PORT) == []
    doomed.domain.destroy()
    driver.detach(step, step.devices[0])
    assert (driver_of(PORT), vfs_of(PORT), driver.attachments()) == ("igb", before, [])


def test_a_device_that_libvirt_does_not_manage_stays_handed_over_until_it_is_detached(
    conf: cfg.ConfigOpts,
    driver: LibvirtDriver,
    make_guest: Callable[..., Guest],
    make_step: MakeStep,
    unmanaged: None,
) -> None:
    guest = make_guest("unmanaged", running=False)
    step = make_step("attach", VF, instance_id=guest.uuid)
    attach(driver, step)
    for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
        assert "<hostdev mode='subsystem' type='pci' managed='no'>" in guest.domain.XMLDesc(flags)
    guest.domain.destroy()
    assert driver_of(VF) == "vfio-pci"
    driver.detach(step, step.devices[0])
    assert (driver_of(VF), driver.attachments(), driver.handed_over()) == ("igbvf", [], [])


@pytest.fixture
def unmanaged(conf: cfg.ConfigOpts) -> Iterator[None]:
    conf.set_override("managed", False, "libvirt")
    yield
    conf.clear_override("managed", "libvirt")


def test_a_libvirtd_that_hangs_is_given_up_and_heard_again_when_it_goes_on(driver: LibvirtDriver) -> None:
    pid = int(run("pidof", "libvirtd"))
    driver._libvirtd = Deadline("libvirt", 3.0)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(NoAnswer, match="did not answer in 3 s"):
            driver.attachments()
        with pytest.raises(NoAnswer, match="has not answered an earlier question yet"):
            driver.attachments()
    finally:
        os.kill(pid, signal.SIGCONT)
    driver._libvirtd = Deadline("libvirt", PATIENCE)
    assert driver.attachments() == []


@pytest.mark.parametrize("address", [VF, PORT])
@pytest.mark.usefixtures("connection")
def test_an_agent_killed_before_the_domain_comes_finishes_or_undoes(
    conf: cfg.ConfigOpts, make_step: MakeStep, tmp_path: Path, address: str
) -> None:
    """The same without a domain: it is killed while it prepares the device, and while it restores it."""
    before = driver_of(address), vfs_of(address)
    step = make_step("attach", address)
    deaths = 0
    while dies_at(deaths + 1, "libvirt", tmp_path, step):
        deaths += 1
        successor = LibvirtDriver(conf, tmp_path)
        successor.start()
        if deaths % 2:
            successor.prepare(step, step.devices[0])
            assert driver_of(address) == "vfio-pci"
        successor.detach(step, step.devices[0])
        assert (driver_of(address), vfs_of(address)) == before
        assert (successor.handed_over(), successor.problems()) == ([], {})
        successor.stop()
    assert deaths >= 4
    assert (driver_of(address), vfs_of(address)) == before


@pytest.mark.parametrize("address", [VF, PORT])
def test_an_agent_killed_between_any_two_steps_finishes_or_undoes(
    conf: cfg.ConfigOpts, guest: Guest, make_step: MakeStep, tmp_path: Path, address: str
) -> None:
    """Killed before each write to sysfs and each order to libvirt; its successor goes on or goes back."""
    before = driver_of(address), vfs_of(address)
    step = make_step("attach", address, instance_id=guest.uuid)
    device = step.devices[0]
    deaths = 0
    while dies_at(deaths + 1, "libvirt", tmp_path, step):
        deaths += 1
        successor = LibvirtDriver(conf, tmp_path)
        successor.start()
        known = {held.claim_id for held in [*successor.attachments(), *successor.handed_over()]}
        assert known <= {step.claim_id}
        if deaths % 2:
            attach(successor, step)
            for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
                assert guest.domain.XMLDesc(flags).count("<hostdev") == 1
        successor.detach(step, device)
        for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
            assert "<hostdev" not in guest.domain.XMLDesc(flags)
        assert (driver_of(address), vfs_of(address)) == before
        assert (successor.attachments(), successor.handed_over(), successor.problems()) == ([], [], {})
        successor.stop()
    assert deaths >= 9
    assert (driver_of(address), vfs_of(address)) == before
