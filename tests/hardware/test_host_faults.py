"""What tools, operators and the kernel do to devices while the agent has them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from tests.hardware.conftest import DEVICES, PORT, VF, driver_of, run, vfs_of, write

MakeStep = Callable[..., Step]


@pytest.fixture
def driver(conf: cfg.ConfigOpts, tmp_path: Path) -> Iterator[VfioDriver]:
    driver = VfioDriver(conf, tmp_path)
    driver.start()
    yield driver
    for row in driver.handover.handed_over():
        driver.handover.take_back(row.address)
    driver.stop()


def hand_over(driver: VfioDriver, step: Step) -> None:
    for device in step.devices:
        driver.prepare(step, device)
        driver.attach(step, device)


def take_back(driver: VfioDriver, step: Step) -> None:
    for device in step.devices:
        driver.detach(step, device)


class TestDriverOverride:
    @pytest.mark.parametrize(("address", "own_driver"), [(VF, "igbvf"), (PORT, "igb")])
    def test_one_that_a_tool_has_left_does_not_keep_a_device_from_its_driver(
        self, driver: VfioDriver, make_step: MakeStep, address: str, own_driver: str
    ) -> None:
        vfs = vfs_of(PORT)
        write(address, "driver_override", "vfio-pci")
        step = make_step("attach", address)
        hand_over(driver, step)
        assert driver_of(address) == "vfio-pci"
        take_back(driver, step)
        assert (driver_of(address), vfs_of(PORT), driver.problems()) == (own_driver, vfs, {})
        assert override_of(address) == "(null)"

    def test_a_driver_that_is_not_there_is_named_until_an_operator_loads_it(
        self, driver: VfioDriver, make_step: MakeStep
    ) -> None:
        step = make_step("attach", VF)
        hand_over(driver, step)
        run("modprobe", "-r", "igbvf")
        try:
            take_back(driver, step)
            assert "igbvf: load that module" in driver.problems()[address_of(VF)]
        finally:
            run("modprobe", "igbvf")
        driver.handover.take_back(address_of(VF))
        assert (driver_of(VF), driver.problems()) == ("igbvf", {})


def override_of(address: str) -> str:
    return (DEVICES / address / "driver_override").read_text().strip()


def address_of(text: str) -> PciAddress:
    return PciAddress.parse(text)
