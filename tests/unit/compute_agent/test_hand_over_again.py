"""After a power loss, devices of claims are handed over before agent, libvirtd and network start."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from oslo_config import cfg

from portclaim.cli.main import main
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from portclaim.services.compute_agent.identity import Identity
from portclaim.services.compute_agent.simulation import SimulatedTree
from tests.support.services import as_ini
from tests.unit.compute_agent.handovers import SimulatedKernel, at_once

PF, VF = PciAddress.parse("0000:01:00.0"), PciAddress.parse("0000:01:10.0")


@pytest.fixture
def kernel(host: SimulatedTree, monkeypatch: pytest.MonkeyPatch) -> SimulatedKernel:
    kernel = SimulatedKernel(host)
    place = "portclaim.services.compute_agent.drivers.real_host"
    monkeypatch.setattr(f"{place}.Kernel", lambda *_arguments: kernel)
    monkeypatch.setattr(f"{place}.wait_until", at_once)
    return kernel


@pytest.fixture
def claimed(
    host: SimulatedTree,
    kernel: SimulatedKernel,
    conf: cfg.ConfigOpts,
    tmp_path: Path,
    make_step: Callable[..., Step],
) -> None:
    """A claim has VF. Then the host loses its power, and its VFs are made anew."""
    state_path = tmp_path / "node-1"
    state_path.mkdir()
    driver = VfioDriver(conf, state_path)
    driver.start()
    step = make_step("attach", str(VF))
    driver.prepare(step, step.devices[0])
    driver.stop()
    kernel.return_to_driver(VF, None, None)
    assert kernel.driver(VF) == "iavf"


@pytest.fixture
def hand_over(host: SimulatedTree, tmp_path: Path) -> Callable[[], Result]:
    file = tmp_path / "portclaim.conf"
    sections = {
        "DEFAULT": {"host": "node-1", "state_path": tmp_path},
        "compute_agent": {"sysfs_root": host.root, "driver": "libvirt"},
    }
    file.write_text(as_ini(sections))
    return lambda: CliRunner().invoke(main, ["--config-file", str(file), "host", "hand-over"])


@pytest.mark.usefixtures("claimed")
def test_a_claimed_vf_is_handed_over(kernel: SimulatedKernel, hand_over: Callable[[], Result]) -> None:
    result = hand_over()
    assert (result.exit_code, result.stdout) == (0, f"{VF}: ready for its guest\n")
    assert kernel.driver(VF) == "vfio-pci"


@pytest.mark.usefixtures("claimed")
def test_a_vf_that_does_not_exist_yet_is_told(host: SimulatedTree, hand_over: Callable[[], Result]) -> None:
    host.set_num_vfs(PF, 0)
    result = hand_over()
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{VF}: {VF} is gone from this host: its PF {PF} has 0 VFs now (claim ")


@pytest.mark.usefixtures("claimed")
def test_not_while_the_agent_runs(
    kernel: SimulatedKernel, hand_over: Callable[[], Result], tmp_path: Path
) -> None:
    agent = Identity(tmp_path, "node-1")
    agent.take()
    result = hand_over()
    assert (result.exit_code, kernel.driver(VF)) == (1, "iavf")
    assert "another agent of host node-1 is running" in result.stderr
    agent.give_back()


@pytest.mark.usefixtures("kernel")
def test_a_host_without_claims_has_nothing_to_do(hand_over: Callable[[], Result]) -> None:
    result = hand_over()
    assert (result.exit_code, result.stdout) == (0, "")
