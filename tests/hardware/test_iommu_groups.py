"""Two functions of one card share an IOMMU group: they go to a guest and come back together."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common.rpc.agent_messages import Step
from tests.hardware.conftest import DEVICES, driver_of
from tests.hardware.guests import Guest

libvirt = pytest.importorskip("libvirt")
from portclaim.services.compute_agent.drivers.libvirt import LibvirtDriver  # noqa: E402 - only where libvirt is
from tests.hardware.test_libvirt import driver, patient  # noqa: E402 - needs libvirt too

__all__ = ["driver", "patient"]  # fixtures


@pytest.fixture
def card() -> Iterator[tuple[str, str]]:
    """The two functions of a card that `run` has added."""
    [first] = [
        place.name
        for place in DEVICES.glob("*.0")
        if (place.with_name(f"{place.name[:-1]}1") / "vendor").exists()
        and (place / "device").read_text().strip() == "0x10d3"
    ]
    both = first, f"{first[:-1]}1"
    assert len({group_of(each) for each in both}) == 1
    yield both
    assert [driver_of(each) for each in both] == ["e1000e", "e1000e"]


def group_of(address: str) -> str:
    return Path(DEVICES / address / "iommu_group").readlink().name


def test_both_leave_the_guest_before_one_returns_to_its_driver(
    driver: LibvirtDriver,
    conf: cfg.ConfigOpts,
    guest: Guest,
    make_step: Callable[..., Step],
    card: tuple[str, str],
) -> None:
    step = make_step("attach", *card, instance_id=guest.uuid)
    for device in step.devices:
        driver.prepare(step, device)
    for device in step.devices:
        driver.attach(step, device)
    assert guest.domain.XMLDesc().count("<hostdev") == 2
    assert [driver_of(each) for each in card] == ["vfio-pci", "vfio-pci"]
    for device in step.devices:
        driver.detach(step, device)
    assert "<hostdev" not in guest.domain.XMLDesc()
    assert (driver.attachments(), driver.problems()) == ([], {})
