"""Two functions of one IOMMU group in a guest: both leave it before one of them returns to its driver.

The lab has two conventional cards behind a bridge, which the IOMMU cannot tell apart.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from tests.hardware.conftest import DEVICES, driver_of
from tests.hardware.guests import Guest
from tests.hardware.vfio_user import group_of, open_device

libvirt = pytest.importorskip("libvirt")
from portclaim.services.compute_agent.drivers.libvirt import LibvirtDriver  # noqa: E402 - only where libvirt is
from tests.hardware.test_libvirt import patient  # noqa: E402 - the same

__all__ = ["patient"]  # fixtures

MakeStep = Callable[..., Step]


@pytest.fixture
def cards() -> list[str]:
    found = sorted(place.name for place in DEVICES.iterdir() if (place / "device").read_text() == "0x100e\n")
    if len(found) < 2:
        pytest.skip("the lab has no two cards in one IOMMU group")
    assert group_of(found[0]) == group_of(found[1])
    assert [driver_of(card) for card in found] == ["e1000", "e1000"]
    return found


def hostdevs(guest: Guest) -> int:
    return guest.domain.XMLDesc().count("<hostdev")


def test_without_a_hypervisor(
    cards: list[str], conf: cfg.ConfigOpts, tmp_path: Path, make_step: MakeStep
) -> None:
    driver = VfioDriver(conf, tmp_path)
    driver.start()
    step = make_step("attach", *cards)
    for device in step.devices:
        driver.prepare(step, device)
    assert [driver_of(card) for card in cards] == ["vfio-pci", "vfio-pci"]
    with open_device(cards[0]):
        for device in step.devices:
            with pytest.raises(DriverError, match="still open in a guest"):
                driver.detach(step, device)
    for device in step.devices:
        driver.detach(step, device)
    assert [driver_of(card) for card in cards] == ["e1000", "e1000"]
    assert (driver.handed_over(), driver.problems()) == ([], {})
    driver.stop()


@pytest.fixture
def driver(conf: cfg.ConfigOpts, tmp_path: Path, connection: object) -> Iterator[LibvirtDriver]:
    driver = LibvirtDriver(conf, tmp_path)
    driver.start()
    yield driver
    driver.stop()


def test_with_a_guest_that_runs(
    cards: list[str], driver: LibvirtDriver, make_guest: Callable[..., Guest], make_step: MakeStep
) -> None:
    guest = make_guest("group", running=True, machine="pc")
    assert guest.says("GUEST sees 0")
    step = make_step("attach", *cards, instance_id=guest.uuid)
    for device in step.devices:
        driver.prepare(step, device)
    for device in step.devices:
        driver.attach(step, device)
    assert hostdevs(guest) == 2
    driver.detach(step, step.devices[0])  # raises no error, because the other one leaves the guest too
    assert (hostdevs(guest), driver_of(cards[0])) == (0, "e1000")
    driver.detach(step, step.devices[1])
    assert [driver_of(card) for card in cards] == ["e1000", "e1000"]
    assert (driver.attachments(), driver.handed_over(), driver.problems()) == ([], [], {})
    guest.domain.destroy()
