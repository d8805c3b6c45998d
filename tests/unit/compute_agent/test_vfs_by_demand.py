"""Each reason why the number of a port's VFs stays, and what a claim and a report are told then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.common.rpc.network_settings import NetworkSettings
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.handover import Handover
from portclaim.services.compute_agent.real_ports import RealPorts
from portclaim.services.compute_agent.restore import Restorer
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.sysfs import SysfsTree
from portclaim.services.compute_agent.vfs_by_demand import VfsByDemand
from tests.unit.compute_agent.handovers import FRESH, CardLinks, SimulatedKernel, at_once, settings_of

MakeStep = Callable[..., Step]
PF, OTHER_PF, VF, LAST_VF = (
    PciAddress.parse(text) for text in ("0000:01:00.0", "0000:02:00.0", "0000:01:10.0", "0000:01:10.6")
)
SPEC = ['{"num_vfs": "0-4"}']
IDLE = 300.0


class Agent:
    def __init__(
        self,
        host: SimulatedTree,
        scanner: Scanner,
        state_path: Path,
        spec: Sequence[str] = SPEC,
        links: CardLinks | None = None,
    ) -> None:
        tree = SysfsTree(host.root)
        self.host, self.scanner = host, scanner
        self.kernel = SimulatedKernel(host)
        restorer = Restorer(self.kernel, scanner, spec, None, 1.0, at_once)
        network = settings_of(host, scanner, restorer, links, enabled=links is not None)
        self.handover = Handover(tree, scanner, self.kernel, restorer, network)
        self.handover.start(state_path)
        ports = RealPorts(tree, scanner, self.kernel, restorer, self.handover)
        self.by_demand = VfsByDemand(scanner, ports, spec)

    def idle(self) -> list[PciAddress]:
        """Nobody claims or releases anything for long enough."""
        assert list(self.by_demand.remove_idle(IDLE, lambda: 0.0)) == []
        return list(self.by_demand.remove_idle(IDLE, lambda: IDLE))

    def wants(self, step: Step) -> None:
        with self.by_demand.providing(step.devices[0]):
            self.handover.hand_over(step, PciAddress.parse(step.devices[0].address))

    def why(self, address: PciAddress) -> str | None:
        return self.by_demand.completed(self.scanner.scan(), {}).held_back.get(address)


@pytest.fixture
def agent(host: SimulatedTree, scanner: Scanner, state_path: Path) -> Agent:
    host.set_num_vfs(OTHER_PF, 0)
    return Agent(host, scanner, state_path)


@pytest.fixture
def last_vf(make_step: MakeStep) -> Step:
    return make_step("attach", str(LAST_VF))


def test_idle_vfs_are_removed_and_made_again(agent: Agent, last_vf: Step) -> None:
    assert agent.idle() == [PF]
    assert agent.host.num_vfs(PF) == 0
    agent.wants(last_vf)
    assert (agent.host.num_vfs(PF), agent.kernel.driver(LAST_VF)) == (4, "vfio-pci")


def test_a_step_in_hand_keeps_them(agent: Agent, last_vf: Step) -> None:
    with agent.by_demand.providing(last_vf.devices[0]):
        assert agent.idle() == []
    assert agent.idle() == [PF]


def _bridge(agent: Agent) -> None:
    device = agent.scanner.look(PF)
    assert device is not None
    place = agent.host.root / "bus/pci/devices" / str(PF) / "net" / str(device.netdev)
    (place / "upper_br0").mkdir()


REASONS: dict[str, tuple[Callable[[Agent], object], str]] = {
    "the host uses the port": (_bridge, "br0 is built on"),
    "somebody else has a VF": (lambda agent: agent.kernel.bind_to_vfio(VF), "Portclaim did not bind it"),
    "the port has no driver": (lambda agent: agent.host.bind(PF, None), "is on no driver"),
}


@pytest.mark.parametrize("name", REASONS)
def test_the_number_stays(agent: Agent, last_vf: Step, name: str) -> None:
    agent.host.set_num_vfs(PF, 0)
    agent.host.set_num_vfs(PF, 2)
    change, reason = REASONS[name]
    change(agent)
    before = agent.host.num_vfs(PF)
    assert agent.idle() == []
    with pytest.raises(DriverError, match=reason):
        agent.wants(last_vf)
    assert reason in (agent.why(LAST_VF) or "")
    assert agent.host.num_vfs(PF) == before


def test_a_held_vf_keeps_the_number(agent: Agent, make_step: MakeStep, last_vf: Step) -> None:
    agent.host.set_num_vfs(PF, 0)
    agent.host.set_num_vfs(PF, 2)
    held = make_step("attach", str(VF))
    agent.handover.hand_over(held, VF)
    assert agent.idle() == []
    with pytest.raises(DriverError, match=f"{VF} is in instance {held.instance_id}"):
        agent.wants(last_vf)
    agent.handover.take_back(VF)
    agent.wants(last_vf)
    assert agent.host.num_vfs(PF) == 4


def test_vfs_that_come_at_other_addresses_are_told(
    agent: Agent, last_vf: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.host.set_num_vfs(PF, 0)
    make = SimulatedKernel.set_num_vfs

    def moved(kernel: SimulatedKernel, pf: PciAddress, count: int) -> None:
        (agent.host.root / "bus/pci/devices" / str(pf) / "sriov_offset").write_text("256\n")
        make(kernel, pf, count)

    monkeypatch.setattr(SimulatedKernel, "set_num_vfs", moved)
    with pytest.raises(DriverError, match="has its VFs at other addresses"):
        agent.wants(last_vf)


def test_a_write_that_the_kernel_refuses_fails_the_claim(agent: Agent, last_vf: Step) -> None:
    agent.host.set_num_vfs(PF, 0)
    agent.kernel.broken.add("set_num_vfs")
    with pytest.raises(DriverError, match="set_num_vfs 4"):
        agent.wants(last_vf)
    assert agent.handover.handed_over() == []


class Killed(BaseException):
    """The agent is killed here."""


def is_killed_before(agent: Agent, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed when it is about to write this number of VFs."""
    write = agent.kernel.set_num_vfs

    def dying(pf: PciAddress, wanted: int) -> None:
        if wanted == count:
            raise Killed
        write(pf, wanted)

    monkeypatch.setattr(agent.kernel, "set_num_vfs", dying)


class TestKilledBetweenTwoWrites:
    """The number goes from n to m through 0. The agent is killed when it is 0."""

    def test_when_a_claim_wants_a_vf(
        self, agent: Agent, last_vf: Step, state_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent.host.set_num_vfs(PF, 0)
        agent.host.set_num_vfs(PF, 2)
        is_killed_before(agent, 4, monkeypatch)
        with pytest.raises(Killed):
            agent.wants(last_vf)
        assert agent.host.num_vfs(PF) == 0
        successor = Agent(agent.host, agent.scanner, state_path)
        completed = successor.by_demand.completed(successor.scanner.scan(), {})
        assert sum(device.parent == PF for device in completed.scan.devices) == 4
        assert PF not in completed.held_back
        assert LAST_VF not in completed.held_back
        successor.wants(last_vf)
        assert agent.host.num_vfs(PF) == 4

    def test_when_idle_vfs_are_removed(
        self, agent: Agent, state_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = ['{"num_vfs": "2-4"}']
        agent.by_demand.take_device_spec(spec)
        is_killed_before(agent, 2, monkeypatch)
        with pytest.raises(Killed):
            agent.idle()
        assert agent.host.num_vfs(PF) == 0
        successor = Agent(agent.host, agent.scanner, state_path, spec)
        assert PF in successor.idle()
        assert agent.host.num_vfs(PF) == 2
        assert successor.idle() == []


def test_where_the_vfs_would_come_again_is_not_known_they_stay(agent: Agent) -> None:
    (agent.host.root / "bus/pci/devices" / str(PF) / "sriov_offset").write_text("0\n")
    assert agent.idle() == []
    assert agent.host.num_vfs(PF) == 4


def test_a_vf_that_is_made_for_a_claim_gets_its_network_settings(
    host: SimulatedTree, scanner: Scanner, state_path: Path, last_vf: Step
) -> None:
    card = CardLinks()
    agent = Agent(host, scanner, state_path, links=card)
    [device] = last_vf.devices
    asked = NetworkSettings.model_validate({"mac": "52:54:00:00:00:01", "vlan": {"id": 100}})
    step = last_vf.model_copy(update={"devices": [device.model_copy(update={"network_settings": asked})]})
    assert agent.idle() == [PF, OTHER_PF]
    agent.wants(step)
    port = scanner.look(PF)
    assert port is not None
    assert port.netdev is not None
    lent = card.vfs[port.netdev, 3]
    assert (lent.mac, lent.vlan.id) == ("52:54:00:00:00:01", 100)
    agent.handover.take_back(LAST_VF)
    assert card.vfs[port.netdev, 3] == FRESH
    assert agent.idle() == [PF]
    assert (host.num_vfs(PF), agent.handover.handed_over()) == (0, [])
