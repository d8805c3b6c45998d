"""A guest that Nova started keeps its devices: the agent records them for the claims that were imported."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest
from oslo_config import cfg

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Holding, Holdings, Step
from portclaim.services.compute_agent.drivers import libvirt as driver_module
from portclaim.services.compute_agent.drivers.base import HypervisorDriver
from portclaim.services.compute_agent.drivers.libvirt import LibvirtDriver
from portclaim.services.compute_agent.drivers.real_host import RealHostDriver
from portclaim.services.compute_agent.drivers.simulated import RECORD, SimulatedDriver
from portclaim.services.compute_agent.drivers.vfio import VfioDriver
from portclaim.services.compute_agent.guests import GuestWatch
from portclaim.services.compute_agent.kernel import VFIO
from portclaim.services.compute_agent.ledger import Ending, Ledger
from portclaim.services.compute_agent.repair import Repair
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from portclaim.services.compute_agent.step_queue import Job
from portclaim.services.compute_agent.steps import StepRunner
from tests.unit.compute_agent import libvirtd as libvirt
from tests.unit.compute_agent.handovers import SimulatedKernel, at_once
from tests.unit.compute_agent.libvirtd import Domain, Libvirtd, by_another_hand

MakeStep = Callable[..., Step]
VF = "0000:01:10.0"
ADDRESS = PciAddress.parse(VF)
INSTANCE, OTHER = UUID(int=1), UUID(int=2)


class Agent:
    """The parts of an agent that do steps; ``repair()`` does at once what a repair asks for."""

    def __init__(self, driver: HypervisorDriver, scanner: Scanner, directory: Path) -> None:
        self.driver = driver
        ledger = Ledger(directory / "steps.sqlite")
        self._jobs: list[Job] = []
        self._runner = StepRunner(driver, scanner, ledger, GuestWatch(self._jobs.append))
        self._repair = Repair(driver, scanner, ledger, self._jobs.append)

    def run(self, step: Step) -> Ending | None:
        return self._runner.run(Job(step))

    def repair(self, step: Step, status: str = "allocated") -> list[Ending | None]:
        """A repair, while the conductor knows the step's claim; and how the steps end that it asks for."""
        facts = step.model_dump(include={"claim_id", "instance_id", "step", "devices"})
        holding = Holding.model_validate(facts | {"status": status})
        self._repair.run(lambda _found: Holdings(holdings=[holding]))
        endings = [self._runner.run(job) for job in self._jobs]
        self._jobs.clear()
        return endings

    @property
    def held_back(self) -> list[str]:
        return [str(address) for address in self._repair.held_back()]


@pytest.fixture
def step(make_step: MakeStep) -> Step:
    """The only step that an imported claim has had, and nobody did."""
    return make_step("attach", VF, instance_id=INSTANCE)


def release(step: Step) -> Step:
    return step.model_copy(update={"step": 2, "action": "detach"})


class TestSimulated:
    @pytest.fixture
    def agent(self, driver: SimulatedDriver, scanner: Scanner, tmp_path: Path, state_path: Path) -> Agent:
        with closing(sqlite3.connect(state_path / RECORD)) as record, record:
            record.execute("INSERT INTO attachments VALUES (?, ?, NULL, ?, 0)", (VF, None, str(INSTANCE)))
        return Agent(driver, scanner, tmp_path)

    def test_the_device_of_a_guest_becomes_one_of_its_claim(self, agent: Agent, step: Step) -> None:
        assert agent.held_back == [VF]
        assert agent.repair(step) == [Ending("done")]
        assert agent.held_back == []
        assert [(held.claim_id, held.instance_id) for held in agent.driver.attachments()] == [
            (step.claim_id, INSTANCE)
        ]
        assert agent.repair(step) == []

    def test_the_repair_does_not_say_that_the_guest_has_lost_it(
        self, agent: Agent, step: Step, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            agent.repair(step)
        assert caplog.messages == []

    def test_a_guest_loses_the_device_when_its_claim_is_released(self, agent: Agent, step: Step) -> None:
        agent.repair(step)
        assert agent.run(release(step)) == Ending("done")
        assert agent.driver.attachments() == []

    def test_so_it_does_if_the_claim_was_released_before_the_agent_came(
        self, agent: Agent, step: Step
    ) -> None:
        assert agent.repair(release(step), "releasing") == [Ending("done")]
        assert agent.driver.attachments() == []

    def test_a_device_of_another_guest_is_not_recorded(self, agent: Agent, step: Step) -> None:
        elsewhere = step.model_copy(update={"instance_id": OTHER})
        assert agent.repair(elsewhere) == [None]
        assert [held.claim_id for held in agent.driver.attachments()] == [None]
        assert agent.held_back == [VF]


@pytest.fixture
def kernel(host: SimulatedTree, monkeypatch: pytest.MonkeyPatch) -> SimulatedKernel:
    """The kernel of a host on which a guest of Nova's uses the VF."""
    kernel = SimulatedKernel(host)
    module = "portclaim.services.compute_agent.drivers.real_host"
    monkeypatch.setattr(f"{module}.Kernel", lambda *_args: kernel)
    monkeypatch.setattr(f"{module}.wait_until", at_once)
    host.bind(ADDRESS, VFIO)
    kernel.opened.add(ADDRESS)
    return kernel


Start = Callable[[type[RealHostDriver]], Agent]


@pytest.fixture
def start(
    conf: cfg.ConfigOpts, kernel: SimulatedKernel, scanner: Scanner, state_path: Path, tmp_path: Path
) -> Iterator[Start]:
    """Starts an agent on that host, with this driver."""
    started: list[RealHostDriver] = []

    def start(driver: type[RealHostDriver]) -> Agent:
        started.append(driver(conf, state_path))
        started[-1].start()
        return Agent(started[-1], scanner, tmp_path)

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Domain:
    """The running domain of INSTANCE, as Nova has defined it."""
    daemon, domain = Libvirtd(), Domain(str(INSTANCE))
    monkeypatch.setattr(libvirt, "open", daemon.open, raising=False)
    monkeypatch.setattr(driver_module, "libvirt", libvirt)
    domain.attachDeviceFlags(by_another_hand(ADDRESS), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    domain.attachDeviceFlags(by_another_hand(ADDRESS), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    daemon.domains.append(domain)
    return domain


@pytest.fixture
def beside_libvirt(start: Start, domain: Domain) -> Agent:
    return start(LibvirtDriver)


@pytest.fixture
def without_libvirt(start: Start) -> Agent:
    return start(VfioDriver)


class TestLibvirt:
    def test_a_running_guest_keeps_its_device_and_nothing_is_written_to_it(
        self, beside_libvirt: Agent, step: Step, domain: Domain, kernel: SimulatedKernel
    ) -> None:
        assert beside_libvirt.held_back == [VF]
        assert beside_libvirt.repair(step) == [Ending("done")]
        assert beside_libvirt.held_back == []
        assert domain.addresses() == ({ADDRESS}, {ADDRESS})
        assert kernel.calls == []
        assert beside_libvirt.repair(step) == []

    def test_a_release_takes_it_from_the_guest_and_gives_it_to_the_host(
        self, beside_libvirt: Agent, step: Step, domain: Domain, kernel: SimulatedKernel
    ) -> None:
        beside_libvirt.repair(step)
        kernel.opened.clear()
        assert beside_libvirt.run(release(step)) == Ending("done")
        assert domain.addresses() == (set(), set())
        assert kernel.driver(ADDRESS) == "iavf"
        assert beside_libvirt.driver.handed_over() == []

    def test_a_guest_that_is_shut_off_keeps_it_in_its_definition(
        self, beside_libvirt: Agent, step: Step, domain: Domain, kernel: SimulatedKernel, host: SimulatedTree
    ) -> None:
        """libvirt has given the device back to the host, because Nova defines it as managed."""
        domain.active, domain.live = False, []
        kernel.opened.clear()
        host.bind(ADDRESS, "iavf")
        assert beside_libvirt.repair(step) == [Ending("done")]
        assert domain.addresses()[1] == {ADDRESS}
        assert kernel.driver(ADDRESS) == VFIO
        assert beside_libvirt.run(release(step)) == Ending("done")
        assert domain.addresses()[1] == set()
        assert kernel.driver(ADDRESS) == "iavf"

    def test_a_device_of_another_domain_is_not_recorded(
        self, beside_libvirt: Agent, step: Step, domain: Domain
    ) -> None:
        assert beside_libvirt.repair(step.model_copy(update={"instance_id": OTHER})) == [None]
        assert domain.addresses() == ({ADDRESS}, {ADDRESS})
        assert beside_libvirt.held_back == [VF]


class TestVfio:
    def test_a_device_that_a_process_has_open_becomes_one_of_its_claim(
        self, without_libvirt: Agent, step: Step, kernel: SimulatedKernel
    ) -> None:
        assert without_libvirt.repair(step) == [Ending("done")]
        assert [held.claim_id for held in without_libvirt.driver.handed_over()] == [step.claim_id]
        assert kernel.calls == []

    def test_a_new_claim_is_still_refused_a_device_that_a_process_has_open(
        self, without_libvirt: Agent, step: Step
    ) -> None:
        ending = without_libvirt.run(step)
        assert ending is not None
        assert ending.outcome == "failed"
        assert without_libvirt.driver.handed_over() == []
        assert without_libvirt.run(release(step)) == Ending("done")
        assert without_libvirt.driver.handed_over() == []
