"""What libvirt is asked to do, and what is made of its answers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from oslo_config import cfg

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers import libvirt as driver_module
from portclaim.services.compute_agent.drivers.base import DriverError, InstanceNotFound
from portclaim.services.compute_agent.drivers.deadline import Deadline, NoAnswer
from portclaim.services.compute_agent.drivers.libvirt import GROUP, OPTIONS, LibvirtDriver
from portclaim.services.compute_agent.ledger import Ledger
from portclaim.services.compute_agent.repair import Repair
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from tests.unit.compute_agent import libvirtd as libvirt
from tests.unit.compute_agent.handovers import SimulatedKernel, at_once
from tests.unit.compute_agent.libvirtd import Domain, Libvirtd, by_another_hand

MakeStep = Callable[..., Step]
PF, VF = PciAddress.parse("0000:01:00.0"), PciAddress.parse("0000:01:10.0")
INSTANCE, OTHER = UUID(int=1), UUID(int=2)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Libvirtd:
    daemon = Libvirtd()
    monkeypatch.setattr(libvirt, "open", daemon.open, raising=False)
    monkeypatch.setattr(driver_module, "libvirt", libvirt)
    monkeypatch.setattr(driver_module, "wait_until", at_once)
    return daemon


@pytest.fixture
def build(
    conf: cfg.ConfigOpts,
    daemon: Libvirtd,
    host: SimulatedTree,
    state_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., LibvirtDriver]]:
    """A driver that was started, on a simulated host, with these options."""
    monkeypatch.setattr(
        "portclaim.services.compute_agent.drivers.real_host.Kernel", lambda *_args: SimulatedKernel(host)
    )
    monkeypatch.setattr("portclaim.services.compute_agent.drivers.real_host.wait_until", at_once)
    conf.register_opts(OPTIONS, GROUP)
    started: list[LibvirtDriver] = []

    def build(**options: object) -> LibvirtDriver:
        for name, value in options.items():
            conf.set_override(name, value, "libvirt")
        started.append(LibvirtDriver(conf, state_path))
        started[-1].start()
        return started[-1]

    yield build
    daemon.answers.set()
    for driver in started:
        driver.stop()
    for option in OPTIONS:  # oslo.config keeps them with the group, which all tests share
        conf.clear_override(option.name, "libvirt")


@pytest.fixture
def driver(build: Callable[..., LibvirtDriver]) -> LibvirtDriver:
    return build()


@pytest.fixture
def domain(daemon: Libvirtd) -> Domain:
    """The running, persistent domain of INSTANCE."""
    daemon.domains.append(Domain(str(INSTANCE)))
    return daemon.domains[-1]


@pytest.fixture
def step(make_step: MakeStep) -> Step:
    return make_step("attach", str(VF), instance_id=INSTANCE)


def attach(driver: LibvirtDriver, step: Step) -> None:
    driver.attach(step, step.devices[0])


def detach(driver: LibvirtDriver, step: Step) -> None:
    driver.detach(step, step.devices[0])


def driver_of(driver: LibvirtDriver, address: PciAddress) -> str | None:
    return driver.kernel.driver(address)


class TestWhere:
    """A device goes where the domain will have it, now and when it is started next."""

    @pytest.mark.parametrize(
        ("domain", "has"),
        [
            (Domain(str(INSTANCE)), ({VF}, {VF})),
            (Domain(str(INSTANCE), persistent=False), ({VF}, None)),
            (Domain(str(INSTANCE), active=False), (None, {VF})),
        ],
        ids=["running", "transient", "shut off"],
    )
    def test_a_device_comes_and_goes(
        self,
        driver: LibvirtDriver,
        daemon: Libvirtd,
        step: Step,
        domain: Domain,
        has: tuple[object, object],
    ) -> None:
        daemon.domains.append(domain)
        nothing = domain.addresses()
        for _ in range(2):  # the same again has no further effect
            attach(driver, step)
            assert domain.addresses() == has
        assert [(a.address, a.instance_id, a.claim_id) for a in driver.attachments()] == [
            (VF, INSTANCE, step.claim_id)
        ]
        assert driver_of(driver, VF) == "vfio-pci"
        for _ in range(2):
            detach(driver, step)
            assert domain.addresses() == nothing
        assert (driver.attachments(), driver.handed_over()) == ([], [])
        assert driver_of(driver, VF) == "iavf"

    def test_what_is_in_the_configuration_alone_is_lost_to_a_running_domain(
        self, driver: LibvirtDriver, domain: Domain, step: Step
    ) -> None:
        attach(driver, step)
        domain.live = []
        assert driver.attachments() == []
        attach(driver, step)
        assert domain.addresses() == ({VF}, {VF})
        assert len(domain.config or []) == 1

    @pytest.mark.parametrize(("managed", "word"), [(True, "yes"), (False, "no")])
    def test_libvirt_moves_drivers_only_if_it_may(
        self, build: Callable[..., LibvirtDriver], domain: Domain, step: Step, managed: bool, word: str
    ) -> None:
        driver = build(managed=managed)
        attach(driver, step)
        assert domain.live is not None
        assert f'managed="{word}"' in domain.live[0]
        detach(driver, step)
        assert driver_of(driver, VF) == "iavf"


class TestRefused:
    def test_an_instance_that_is_not_here(self, driver: LibvirtDriver, step: Step) -> None:
        with pytest.raises(InstanceNotFound, match=f"instance {INSTANCE} is not on this host"):
            attach(driver, step)
        assert driver_of(driver, VF) == "iavf"
        assert driver.handed_over() == []

    @pytest.mark.parametrize("held", [PF, VF])
    @pytest.mark.parametrize("wanted", [PF, VF])
    def test_a_tree_of_which_another_domain_has_something(
        self,
        driver: LibvirtDriver,
        daemon: Libvirtd,
        make_step: MakeStep,
        held: PciAddress,
        wanted: PciAddress,
    ) -> None:
        domain = Domain(str(INSTANCE))
        daemon.domains.append(domain)
        step = make_step("attach", str(wanted), instance_id=INSTANCE)
        other = Domain(str(OTHER))
        other.attachDeviceFlags(by_another_hand(held), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        daemon.domains.append(other)
        with pytest.raises(DriverError, match=f"{held} is already in instance {OTHER}"):
            attach(driver, step)
        assert domain.addresses() == (set(), set())
        detach(driver, step)
        assert other.addresses() == ({held}, set())

    def test_one_that_a_domain_that_is_shut_off_will_have(
        self, driver: LibvirtDriver, daemon: Libvirtd, domain: Domain, step: Step
    ) -> None:
        other = Domain(str(OTHER), active=False)
        other.attachDeviceFlags(by_another_hand(VF), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        daemon.domains.append(other)
        with pytest.raises(DriverError, match=f"{VF} is already in instance {OTHER}"):
            attach(driver, step)
        assert domain.addresses() == (set(), set())

    def test_a_guest_that_does_not_let_go(self, driver: LibvirtDriver, domain: Domain, step: Step) -> None:
        attach(driver, step)
        domain.deaf = True
        with pytest.raises(DriverError, match=f"instance {INSTANCE} does not release {VF}"):
            detach(driver, step)
        assert driver_of(driver, VF) == "vfio-pci"
        domain.deaf = False
        detach(driver, step)
        assert driver_of(driver, VF) == "iavf"


def test_a_domain_that_ends_while_all_are_asked_is_passed_over(
    driver: LibvirtDriver, daemon: Libvirtd, domain: Domain, step: Step
) -> None:
    attach(driver, step)
    daemon.domains.insert(0, Domain(str(OTHER)))
    daemon.domains[0].ended = True
    assert [held.address for held in driver.attachments()] == [VF]


def test_a_daemon_that_was_started_anew_is_connected_to_anew(driver: LibvirtDriver, daemon: Libvirtd) -> None:
    driver.attachments()
    assert daemon.opened == 1
    daemon.is_up = False
    driver.attachments()
    assert daemon.opened == 2
    daemon.is_up = True


class TestHangingDaemon:
    @pytest.fixture
    def driver(self, build: Callable[..., LibvirtDriver]) -> LibvirtDriver:
        driver = build()
        driver._libvirtd = Deadline("libvirt", 0.05)
        return driver

    def test_it_is_given_up_and_not_asked_more_and_more(
        self, driver: LibvirtDriver, daemon: Libvirtd
    ) -> None:
        daemon.answers.clear()
        with pytest.raises(NoAnswer, match=r"libvirt did not answer in 0\.05 s"):
            driver.attachments()
        asked = daemon.asked
        for _ in range(5):
            with pytest.raises(NoAnswer, match="has not answered an earlier question yet"):
                driver.attachments()
        assert daemon.asked == asked

    def test_a_step_fails_and_its_device_is_where_it_was(
        self, driver: LibvirtDriver, daemon: Libvirtd, domain: Domain, step: Step
    ) -> None:
        daemon.answers.clear()
        with pytest.raises(NoAnswer):
            attach(driver, step)
        assert driver_of(driver, VF) == "iavf"
        assert domain.addresses() == (set(), set())

    def test_who_has_what_is_as_it_was_known_last(
        self, driver: LibvirtDriver, daemon: Libvirtd, domain: Domain, scanner: Scanner, tmp_path: Path
    ) -> None:
        domain.attachDeviceFlags(by_another_hand(VF), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        repair = Repair(driver, scanner, Ledger(tmp_path / "steps.sqlite"), lambda _job: None)
        known = repair.held_back()
        assert list(known) == [VF]
        daemon.answers.clear()
        assert repair.held_back() == known


def test_what_left_for_a_claim_and_reached_no_guest_is_known(
    driver: LibvirtDriver, domain: Domain, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an agent was killed between the host and libvirt."""

    def refuse(*_: object) -> None:
        raise libvirt.libvirtError(libvirt.VIR_ERR_OPERATION_FAILED)

    monkeypatch.setattr(domain, "attachDeviceFlags", refuse)
    with pytest.raises(DriverError, match="libvirt: error 9"):
        attach(driver, step)
    assert driver.attachments() == []
    assert [(held.address, held.claim_id) for held in driver.handed_over()] == [(VF, step.claim_id)]
    detach(driver, step.model_copy(update={"claim_id": uuid4()}))
    assert driver_of(driver, VF) == "vfio-pci"
    detach(driver, step)
    assert driver_of(driver, VF) == "iavf"


def test_an_answer_that_is_an_error_is_the_askers() -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        Deadline("somebody", 60.0).ask(fail)
