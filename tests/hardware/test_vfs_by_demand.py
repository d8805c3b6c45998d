"""On a real card: VFs are made when one is claimed, removed when nobody has one, and never under anybody."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers import real_host
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.vfs_by_demand import VfsByDemand
from tests.hardware.conftest import OTHER_PORT, driver_of, run, vfs_of, write
from tests.hardware.test_vf_settings import ASKED, asking, shown
from tests.hardware.vfio_user import open_device

MakeStep = Callable[..., Step]
SPEC = [json.dumps({"address": OTHER_PORT, "num_vfs": "0-7"}), json.dumps({"product_id": "10ca"})]
PORT = PciAddress.parse(OTHER_PORT)


@pytest.fixture
def driver(conf: cfg.ConfigOpts, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[VfioDriver]:
    """``param``: does it set network settings?"""
    conf.set_override("device_spec", SPEC, "pci")
    conf.register_opts(real_host.OPTIONS, real_host.GROUP)
    conf.set_override("network_settings", getattr(request, "param", False), "handover")
    driver = VfioDriver(conf, tmp_path)
    driver.start()
    yield driver
    for row in driver.handover.handed_over():
        driver.handover.take_back(row.address)
    driver.stop()
    # oslo.config keeps overrides with their groups, which all tests share.
    conf.clear_override("network_settings", "handover")
    conf.clear_override("device_spec", "pci")


@pytest.fixture
def by_demand(driver: VfioDriver, scanner: Scanner) -> VfsByDemand:
    return VfsByDemand(scanner, driver.ports, SPEC)


@pytest.fixture
def first_vf(by_demand: VfsByDemand, scanner: Scanner, make_step: MakeStep) -> Step:
    """A step for the first VF, which does not exist yet, as the agent reports it."""
    devices = by_demand.completed(scanner.scan(), {}).scan.devices
    vfs = [device for device in devices if device.parent == PORT]
    assert [device.exists for device in vfs] == [False] * 7
    step = make_step("attach", OTHER_PORT)
    facts = {"address": str(vfs[0].address), "dev_type": "type-VF", "product_id": vfs[0].product_id}
    device = step.devices[0].model_copy(update=facts | {"parent_address": OTHER_PORT})
    return step.model_copy(update={"devices": [device]})


def prepare(driver: VfioDriver, by_demand: VfsByDemand, step: Step) -> None:
    for device in step.devices:
        with by_demand.providing(device):
            driver.prepare(step, device)


def detach(driver: VfioDriver, step: Step) -> None:
    for device in step.devices:
        driver.detach(step, device)


def test_they_are_made_for_a_claim_and_removed_when_nobody_has_one(
    driver: VfioDriver, by_demand: VfsByDemand, first_vf: Step
) -> None:
    [device] = first_vf.devices
    prepare(driver, by_demand, first_vf)
    assert len(vfs_of(OTHER_PORT)) == 7
    assert device.address == vfs_of(OTHER_PORT)[0]
    assert driver_of(device.address) == "vfio-pci"
    with open_device(device.address):
        for _ in range(2):
            assert list(by_demand.remove_idle(0.0)) == []
    assert len(vfs_of(OTHER_PORT)) == 7
    detach(driver, first_vf)
    run("udevadm", "settle")
    assert driver_of(device.address) == "igbvf"
    assert list(by_demand.remove_idle(0.0)) == [PORT]
    assert vfs_of(OTHER_PORT) == []
    assert driver.problems() == {}


def test_a_whole_port_has_nothing_to_lose(
    driver: VfioDriver, by_demand: VfsByDemand, make_step: MakeStep
) -> None:
    step = make_step("attach", OTHER_PORT)
    prepare(driver, by_demand, step)
    assert (driver_of(OTHER_PORT), vfs_of(OTHER_PORT)) == ("vfio-pci", [])
    detach(driver, step)
    assert (driver_of(OTHER_PORT), vfs_of(OTHER_PORT)) == ("igb", [])


@pytest.mark.parametrize("driver", [True], indirect=True)
def test_a_vf_that_is_made_for_a_claim_gets_its_network_settings(
    driver: VfioDriver, by_demand: VfsByDemand, first_vf: Step
) -> None:
    run("ip", "link", "set", "enp2s0", "up")
    step = asking(first_vf, **ASKED)
    prepare(driver, by_demand, step)
    lent = shown(0, "enp2s0")
    assert lent.startswith("link/ether 52:54:00:00:00:01")
    assert "vlan 100" in lent
    detach(driver, step)
    assert ASKED["mac"] not in shown(0, "enp2s0")
    assert "vlan" not in shown(0, "enp2s0")
    run("ip", "link", "set", "enp2s0", "down")  # with all of its routes, also advertised ones
    assert list(by_demand.remove_idle(0.0)) == [PORT]
    assert driver.problems() == {}


def test_while_the_host_uses_a_vf_the_number_stays(
    driver: VfioDriver, by_demand: VfsByDemand, scanner: Scanner, first_vf: Step
) -> None:
    write(OTHER_PORT, "sriov_numvfs", 2)
    run("udevadm", "settle")
    used = scanner.look(PciAddress.parse(vfs_of(OTHER_PORT)[0]))
    assert used is not None
    assert used.netdev is not None
    run("ip", "link", "add", "link", used.netdev, "name", "macvlan0", "type", "macvlan")
    try:
        assert list(by_demand.remove_idle(0.0)) == []
        missing = first_vf.devices[0].model_copy(update={"address": _seventh(by_demand, scanner)})
        with (
            pytest.raises(DriverError, match=r"cannot be made now: .* macvlan0 is built on"),
            by_demand.providing(missing),
        ):
            pass
    finally:
        run("ip", "link", "del", "macvlan0")
    assert len(vfs_of(OTHER_PORT)) == 2


def _seventh(by_demand: VfsByDemand, scanner: Scanner) -> str:
    devices = by_demand.completed(scanner.scan(), {}).scan.devices
    return str([device.address for device in devices if device.parent == PORT][-1])
