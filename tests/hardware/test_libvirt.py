"""A libvirt guest gets a VF and a whole port, drives them, and gives them back."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from common.rpc.messages import Step
from services.compute_agent.drivers.base import DriverError, InstanceNotFound
from services.compute_agent.uevents import wait_until
from tests.hardware.conftest import OTHER_PORT, PORT, VF, driver_of, vfs_of
from tests.hardware.guests import PATIENCE, Guest

libvirt = pytest.importorskip("libvirt")
from services.compute_agent.drivers.libvirt import LibvirtDriver  # noqa: E402 - only where libvirt is

MakeStep = Callable[..., Step]


@pytest.fixture
def driver(conf: cfg.ConfigOpts, tmp_path: Path, connection: object) -> Iterator[LibvirtDriver]:
    driver = LibvirtDriver(conf, tmp_path)
    driver.start()
    yield driver
    driver.stop()


def test_a_vf_and_then_the_whole_port_go_to_a_running_guest_and_come_home(
    driver: LibvirtDriver, guest: Guest, make_step: MakeStep
) -> None:
    before = vfs_of(PORT)
    for address, own_driver in ((VF, "igbvf"), (PORT, "igb")):
        step = make_step("attach", address, instance_id=guest.uuid)
        driver.attach(step, step.devices[0])
        driver.attach(step, step.devices[0])  # again: nothing more
        assert [(str(each.address), each.claim_id) for each in driver.attachments()] == [
            (address, step.claim_id)
        ]
        assert driver_of(address) == "vfio-pci"
        assert guest.says("GUEST sees 1")
        driver.detach(step, step.devices[0])
        assert guest.says("GUEST sees 0")
        assert (driver_of(address), driver.attachments(), driver.troubles()) == (own_driver, [], {})
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
    with pytest.raises(DriverError, match=f"{VF} is in instance {other.uuid} already"):
        driver.attach(step, step.devices[0])
    with pytest.raises(DriverError, match=f"{VF} is in instance"):
        driver.attach(make_step("attach", PORT, instance_id=other.uuid), make_step("attach", PORT).devices[0])
    driver.detach(step, step.devices[0])
    assert (driver_of(VF), driver_of(PORT)) == ("vfio-pci", "igb")
    other.domain.destroy()
    assert wait_until(lambda: driver_of(VF) == "igbvf", PATIENCE)


def test_an_instance_that_is_elsewhere_gets_nothing(driver: LibvirtDriver, make_step: MakeStep) -> None:
    step = make_step("attach", OTHER_PORT)
    with pytest.raises(InstanceNotFound, match="is not on this host"):
        driver.attach(step, step.devices[0])
    assert driver_of(OTHER_PORT) == "igb"


def test_a_guest_that_is_destroyed_leaves_its_port_to_be_brought_home(
    driver: LibvirtDriver, make_guest: Callable[..., Guest], make_step: MakeStep
) -> None:
    before = vfs_of(PORT)
    doomed = make_guest("doomed", running=False)
    step = make_step("attach", PORT, instance_id=doomed.uuid)
    driver.attach(step, step.devices[0])
    assert vfs_of(PORT) == []
    doomed.domain.destroy()
    driver.detach(step, step.devices[0])
    assert (driver_of(PORT), vfs_of(PORT), driver.attachments()) == ("igb", before, [])
