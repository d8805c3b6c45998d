"""The network settings of a real card's VFs: set for a claim, read back, and restored after it."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers import real_host
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from tests.hardware.conftest import OTHER_PORT, VF, driver_of, run
from tests.hardware.deaths import dies_at

MakeStep = Callable[..., Step]

PF_NETDEV = "enp1s0"
OWN_MAC = "02:00:00:00:00:10"
ASKED = {"mac": "52:54:00:00:00:01", "vlan": {"id": 100, "qos": 3}, "trust": True, "spoofchk": False}


def asking(step: Step, **settings: Any) -> Step:
    """The same step, whose devices are to get these settings."""
    message = json.loads(step.model_dump_json())
    for device in message["devices"]:
        device["network_settings"] = settings
    return Step.model_validate_json(json.dumps(message))


def shown(number: int = 0, netdev: str = PF_NETDEV) -> str:
    """What `ip -details link` shows of a VF."""
    (line,) = re.findall(
        rf"^ *vf {number} +(.*)$", run("ip", "-details", "link", "show", netdev), re.MULTILINE
    )
    return " ".join(line.split())


@pytest.fixture
def state_path(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def build(conf: cfg.ConfigOpts, state_path: Path) -> Iterator[Callable[..., VfioDriver]]:
    """Makes the driver of an agent that starts, for the first time or after it was killed."""
    conf.register_opts(real_host.OPTIONS, real_host.GROUP)
    conf.set_override("network_settings", True, "handover")
    built: list[VfioDriver] = []

    def build(*device_spec: dict[str, Any]) -> VfioDriver:
        conf.set_override("device_spec", [json.dumps(entry) for entry in device_spec], "pci")
        if built:
            built[-1].stop()
        built.append(VfioDriver(conf, state_path))
        built[-1].start()
        return built[-1]

    run("ip", "link", "set", PF_NETDEV, "up")
    run(
        "ip",
        "link",
        "set",
        PF_NETDEV,
        "vf",
        "0",
        "mac",
        OWN_MAC,
        "vlan",
        "0",
        "trust",
        "off",
        "spoofchk",
        "on",
    )
    yield build
    for driver in built[-1:]:
        for row in driver.handover.handed_over():
            driver.handover.take_back(row.address)
        driver.stop()
    run("ip", "link", "set", PF_NETDEV, "down")  # with all of its routes, also advertised ones
    # oslo.config keeps overrides with their groups, which all tests share.
    conf.clear_override("device_spec", "pci")
    conf.clear_override("network_settings", "handover")


@pytest.fixture
def driver(build: Callable[..., VfioDriver]) -> VfioDriver:
    return build()


def lend(driver: VfioDriver, step: Step) -> None:
    for device in step.devices:
        driver.prepare(step, device)


def take_back(driver: VfioDriver, step: Step) -> None:
    for device in step.devices:
        driver.detach(step, device)


def test_a_vf_has_what_its_claim_asks_for_and_then_what_it_had(
    driver: VfioDriver, make_step: MakeStep
) -> None:
    before = shown()
    step = asking(make_step("attach", VF), **ASKED)
    lend(driver, step)
    assert shown().startswith("link/ether 52:54:00:00:00:01")
    for part in ("vlan 100, qos 3", "spoof checking off", "trust on"):
        assert part in shown()
    take_back(driver, step)
    assert (shown(), driver_of(VF)) == (before, "igbvf")
    assert driver.problems() == {}


def test_a_vf_that_had_no_mac_has_none_of_a_tenant_afterwards(
    driver: VfioDriver, make_step: MakeStep
) -> None:
    run("ip", "link", "set", PF_NETDEV, "vf", "0", "mac", "00:00:00:00:00:00")
    step = asking(make_step("attach", VF), **ASKED)
    lend(driver, step)
    take_back(driver, step)
    assert driver_of(VF) == "igbvf"  # which chooses a MAC by itself, where none was set
    assert ASKED["mac"] not in shown()
    assert driver.problems() == {}


def test_the_next_tenant_sees_nothing_of_the_last_one(driver: VfioDriver, make_step: MakeStep) -> None:
    step = asking(make_step("attach", VF), **ASKED)
    lend(driver, step)
    take_back(driver, step)
    successor = make_step("attach", VF)
    lend(driver, successor)
    assert "52:54:00:00:00:01" not in shown()
    assert "vlan" not in shown()
    assert "spoof checking on" in shown()
    assert "trust off" in shown()
    take_back(driver, step)  # a late clean-up for the last tenant
    assert driver_of(VF) == "vfio-pci"
    take_back(driver, successor)


def test_what_an_operator_left_on_a_vf_does_not_reach_a_claim(
    driver: VfioDriver, make_step: MakeStep
) -> None:
    run("ip", "link", "set", PF_NETDEV, "vf", "0", "vlan", "7", "trust", "on", "spoofchk", "off")
    left = shown()
    step = make_step("attach", VF)
    lend(driver, step)
    assert "vlan" not in shown()
    assert "spoof checking on" in shown()
    assert "trust off" in shown()
    take_back(driver, step)
    assert shown() == left  # it was there before the claim


def test_device_spec_may_say_otherwise(build: Callable[..., VfioDriver], make_step: MakeStep) -> None:
    driver = build({"vendor_id": "8086", "vf_defaults": {"trust": "on", "vlan": 12}})
    step = make_step("attach", VF)
    lend(driver, step)
    assert "vlan 12" in shown()
    assert "trust on" in shown()
    assert "spoof checking on" in shown()
    take_back(driver, step)


def test_a_setting_that_the_driver_does_not_know_is_told_and_nothing_stays(
    driver: VfioDriver, make_step: MakeStep
) -> None:
    before = shown()
    step = asking(
        make_step("attach", VF), link_state="disable", min_tx_rate=10, max_tx_rate=100, vlan={"id": 5}
    )
    with pytest.raises(DriverError) as error:
        lend(driver, step)
    assert "link_state disable: Operation not supported" in str(error.value)
    assert "tx_rate" in str(error.value)
    assert "vlan" not in str(error.value)
    take_back(driver, step)  # as the agent does when a step fails
    assert (shown(), driver_of(VF)) == (before, "igbvf")


def test_an_agent_killed_between_any_two_writes_leaves_the_vf_as_it_was(
    build: Callable[..., VfioDriver], make_step: MakeStep, state_path: Path
) -> None:
    """Killed before the first write, before the second, ... until it lives to the end."""
    before = shown()
    step = asking(make_step("attach", VF), **ASKED)
    deaths = 0
    while dies_at(deaths + 1, "vfio", state_path, step, {"network_settings": True}):
        deaths += 1
        successor = build()
        if successor.attachments():
            take_back(successor, step)
        assert (shown(), driver_of(VF)) == (before, "igbvf")
        assert successor.problems() == {}
    assert deaths >= 14
    assert (shown(), driver_of(VF)) == (before, "igbvf")


def test_a_pf_whose_card_forgets_its_mac_is_not_given_out_with_one(
    driver: VfioDriver, make_step: MakeStep
) -> None:
    before = run("ip", "-brief", "link", "show", "enp2s0")
    step = asking(make_step("attach", OTHER_PORT), mac="52:54:00:00:00:01")
    with pytest.raises(DriverError, match="driver igb: mac 52:54:00:00:00:01: it was set, but does not stay"):
        lend(driver, step)
    take_back(driver, step)
    assert (run("ip", "-brief", "link", "show", "enp2s0"), driver_of(OTHER_PORT)) == (before, "igb")
    assert driver.problems() == {}


WITH_ONE_CAPABILITY = """
import sys
from pathlib import Path
from portclaim.common import config
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers import real_host
from portclaim.services.compute_agent.drivers.vfio import VfioDriver

assert "CapEff:\\t0000000000001000" in Path("/proc/self/status").read_text()  # CAP_NET_ADMIN
conf = config.load([], "test")
conf.register_opts(real_host.OPTIONS, real_host.GROUP)
conf.set_override("network_settings", True, "handover")
driver = VfioDriver(conf, Path(sys.argv[1]))
driver.start()
step = Step.model_validate_json(sys.argv[2])
driver.prepare(step, step.devices[0])
driver.detach(step, step.devices[0])
assert not driver.problems(), driver.problems()
driver.stop()
"""


def test_it_needs_no_capability_but_one(
    build: Callable[..., VfioDriver], make_step: MakeStep, tmp_path: Path
) -> None:
    before = shown()
    step = asking(make_step("attach", VF), **ASKED).model_dump_json()
    rights = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", "--no-new-privs"]
    run(*rights, sys.executable, "-c", WITH_ONE_CAPABILITY, str(tmp_path), step)
    assert (shown(), driver_of(VF)) == (before, "igbvf")
