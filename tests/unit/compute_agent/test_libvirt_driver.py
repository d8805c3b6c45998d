"""The calls of the libvirt driver to libvirt, and how the driver handles the answers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from uuid import UUID, uuid4

import pytest
from oslo_config import cfg

from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers import libvirt as driver_module
from portclaim.services.compute_agent.drivers import libvirt_events
from portclaim.services.compute_agent.drivers.base import DriverError, InstanceNotFound
from portclaim.services.compute_agent.drivers.deadline import Deadline, NoAnswer
from portclaim.services.compute_agent.drivers.hostdev import Hostdev
from portclaim.services.compute_agent.drivers.libvirt import GROUP, OPTIONS, LibvirtDriver
from portclaim.services.compute_agent.drivers.libvirt_events import Departures
from portclaim.services.compute_agent.ledger import Ledger
from portclaim.services.compute_agent.repair import Repair
from portclaim.services.compute_agent.scanner import Scanner
from portclaim.services.compute_agent.simulation import SimulatedTree
from tests.unit.compute_agent import libvirtd as libvirt
from tests.unit.compute_agent.handovers import SimulatedKernel, at_once, share_group
from tests.unit.compute_agent.libvirtd import Domain, Libvirtd, by_another_hand

MakeStep = Callable[..., Step]
PF, VF, VF2 = (PciAddress.parse(text) for text in ("0000:01:00.0", "0000:01:10.0", "0000:01:10.2"))
INSTANCE, OTHER = UUID(int=1), UUID(int=2)
PATIENCE = 10.0  # seconds after which a test has failed


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Libvirtd:
    daemon = Libvirtd()
    monkeypatch.setattr(libvirt, "open", daemon.open, raising=False)
    monkeypatch.setattr(driver_module, "libvirt", libvirt)
    monkeypatch.setattr(Departures, "wait_until", lambda _self, is_out, _timeout: is_out())
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
    for option in OPTIONS:  # oslo.config stores overrides in the group, which all tests share
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
    driver.prepare(step, step.devices[0])
    driver.attach(step, step.devices[0])


def detach(driver: LibvirtDriver, step: Step) -> None:
    driver.detach(step, step.devices[0])


def driver_of(driver: LibvirtDriver, address: PciAddress) -> str | None:
    return driver.kernel.driver(address)


class TestIommuGroups:
    """While a guest has one device of a group, no device of the group can return to its driver."""

    def test_all_devices_of_a_group_leave_the_guest_before_one_returns_to_its_driver(
        self, driver: LibvirtDriver, domain: Domain, host: SimulatedTree, make_step: MakeStep
    ) -> None:
        share_group(host, VF, VF2)
        step = make_step("attach", str(VF), str(VF2), instance_id=INSTANCE)
        for device in step.devices:
            driver.prepare(step, device)
        for device in step.devices:
            driver.attach(step, device)
        group_is_open(driver, domain, {VF, VF2})
        for device in step.devices:
            driver.detach(step, device)
        assert domain.addresses() == (set(), set())
        assert [driver_of(driver, each) for each in (VF, VF2)] == ["iavf", "iavf"]

    def test_the_claim_that_keeps_the_group_open_is_named(
        self, driver: LibvirtDriver, domain: Domain, host: SimulatedTree, make_step: MakeStep
    ) -> None:
        share_group(host, VF, VF2)
        both = make_step("attach", str(VF), str(VF2), instance_id=INSTANCE)
        one, other = (
            both.model_copy(update={"claim_id": uuid4(), "devices": [device]}) for device in both.devices
        )
        for address in (VF, VF2):
            driver.kernel.bind_to_vfio(address)
        attach(driver, one)
        attach(driver, other)
        group_is_open(driver, domain, {VF, VF2})
        with pytest.raises(DriverError, match=f"{VF2} of claim {other.claim_id} is in the same IOMMU group"):
            detach(driver, one)
        detach(driver, other)
        detach(driver, one)
        assert driver.handed_over() == []


def group_is_open(driver: LibvirtDriver, domain: Domain, members: set[PciAddress]) -> None:
    """From now on, the kernel shows the group of these devices as open while the domain has one of them."""

    def in_use(address: PciAddress) -> bool:
        live, _ = domain.addresses()
        return address in members and bool(live and live & members)

    driver.kernel.in_use = in_use  # type: ignore[method-assign]


class TestWhere:
    """A device is attached to the running domain and to the configuration for its next start."""

    @pytest.mark.parametrize(
        ("domain", "has"),
        [
            (Domain(str(INSTANCE)), ({VF}, {VF})),
            (Domain(str(INSTANCE), persistent=False), ({VF}, None)),
            (Domain(str(INSTANCE), active=False), (None, {VF})),
        ],
        ids=["running", "transient", "shut off"],
    )
    def test_a_device_is_attached_and_detached(
        self,
        driver: LibvirtDriver,
        daemon: Libvirtd,
        step: Step,
        domain: Domain,
        has: tuple[object, object],
    ) -> None:
        daemon.domains.append(domain)
        nothing = domain.addresses()
        for _ in range(2):  # repeating the call has no further effect
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

    def test_a_running_domain_with_a_device_only_in_its_configuration_has_lost_it(
        self, driver: LibvirtDriver, domain: Domain, step: Step
    ) -> None:
        attach(driver, step)
        domain.live = []
        assert driver.attachments() == []
        attach(driver, step)
        assert domain.addresses() == ({VF}, {VF})
        assert len(domain.config or []) == 1

    @pytest.mark.parametrize(("managed", "word"), [(True, "yes"), (False, "no")])
    def test_libvirt_binds_drivers_only_if_managed_is_set(
        self, build: Callable[..., LibvirtDriver], domain: Domain, step: Step, managed: bool, word: str
    ) -> None:
        driver = build(managed=managed)
        attach(driver, step)
        assert domain.live is not None
        assert f'managed="{word}"' in domain.live[0]
        detach(driver, step)
        assert driver_of(driver, VF) == "iavf"

    def test_libvirt_binds_no_driver_of_a_device_that_the_operator_binds(
        self,
        build: Callable[..., LibvirtDriver],
        conf: cfg.ConfigOpts,
        host: SimulatedTree,
        domain: Domain,
        step: Step,
    ) -> None:
        conf.set_override("device_spec", ['{"address": "0000:01:*.*", "managed": "no"}'], "pci")
        try:
            host.bind(VF, "vfio-pci")
            attach(build(managed=True), step)
        finally:
            conf.clear_override("device_spec", "pci")
        assert domain.live is not None
        assert 'managed="no"' in domain.live[0]


class TestBeforeTheDomain:
    """The claim comes first. The device is prepared, and waits for a domain with the instance's UUID."""

    @pytest.fixture
    def prepared(self, driver: LibvirtDriver, step: Step) -> Step:
        with pytest.raises(InstanceNotFound, match=f"instance {INSTANCE} is not on this host"):
            attach(driver, step)
        return step

    def test_the_device_is_ready(self, driver: LibvirtDriver, prepared: Step) -> None:
        assert driver_of(driver, VF) == "vfio-pci"
        assert [(held.address, held.claim_id) for held in driver.handed_over()] == [(VF, prepared.claim_id)]
        assert driver.attachments() == []
        assert not driver.has(prepared, prepared.devices[0])

    def test_the_device_can_be_taken_back(self, driver: LibvirtDriver, prepared: Step) -> None:
        detach(driver, prepared)
        assert driver_of(driver, VF) == "iavf"
        assert driver.handed_over() == []

    @pytest.mark.parametrize("alias", [True, False], ids=["with our alias", "with another alias"])
    @pytest.mark.parametrize("active", [True, False], ids=["running", "shut off"])
    def test_a_domain_may_bring_the_device_in_its_definition(
        self, driver: LibvirtDriver, daemon: Libvirtd, prepared: Step, alias: bool, active: bool
    ) -> None:
        domain = Domain(str(INSTANCE), active=active)
        element = Hostdev(VF, prepared.claim_id if alias else None).to_xml(managed=True)
        domain.config = [element]
        domain.live = [element] if active else None
        daemon.domains.append(domain)
        assert driver.has(prepared, prepared.devices[0])
        attach(driver, prepared)
        assert (domain.config, domain.live) == ([element], [element] if active else None)
        assert [(held.address, held.claim_id) for held in driver.attachments()] == [(VF, prepared.claim_id)]
        detach(driver, prepared)
        assert domain.addresses() == (set() if active else None, set())
        assert driver_of(driver, VF) == "iavf"

    def test_a_domain_that_starts_while_it_is_configured_gets_the_device_once(
        self, driver: LibvirtDriver, daemon: Libvirtd, prepared: Step, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        domain = Domain(str(INSTANCE), active=False)
        daemon.domains.append(domain)
        attach_device = domain.attachDeviceFlags

        def start_first(xml: str, flags: int) -> None:
            attach_device(xml, flags)
            domain.live = list(domain.config or [])

        monkeypatch.setattr(domain, "attachDeviceFlags", start_first)
        attach(driver, prepared)
        assert domain.addresses() == ({VF}, {VF})
        assert len(domain.live or []) == 1

    def test_a_caller_that_configures_the_device_at_the_same_moment_wins(
        self, driver: LibvirtDriver, daemon: Libvirtd, prepared: Step, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        domain = Domain(str(INSTANCE), active=False)
        daemon.domains.append(domain)

        def refuse(xml: str, _flags: int) -> None:
            domain.config = [xml]
            raise libvirt.libvirtError(libvirt.VIR_ERR_OPERATION_FAILED)

        monkeypatch.setattr(domain, "attachDeviceFlags", refuse)
        attach(driver, prepared)
        assert driver.has(prepared, prepared.devices[0])

    def test_a_device_of_another_claim_in_the_same_instance_stays(
        self, driver: LibvirtDriver, domain: Domain, step: Step
    ) -> None:
        """An operator attached it by hand after the claim had ended."""
        attach(driver, step)
        detach(driver, step)
        domain.live = [by_another_hand(VF)]
        detach(driver, step)
        assert domain.addresses() == ({VF}, set())


class TestLiveMigration:
    def test_a_guest_that_is_still_arriving_gets_its_device_when_it_runs(
        self, driver: LibvirtDriver, domain: Domain, step: Step
    ) -> None:
        domain.arrives = True
        with pytest.raises(InstanceNotFound):
            attach(driver, step)
        assert driver_of(driver, VF) == "vfio-pci"
        assert domain.addresses() == (set(), set())
        domain.arrives = False
        attach(driver, step)
        assert domain.addresses() == ({VF}, {VF})

    def test_a_guest_whose_migration_is_aborted_will_not_come(
        self, driver: LibvirtDriver, daemon: Libvirtd, domain: Domain, step: Step
    ) -> None:
        domain.arrives = True
        with pytest.raises(InstanceNotFound):
            attach(driver, step)
        daemon.domains.remove(domain)
        with pytest.raises(DriverError, match=f"migration of instance {INSTANCE} to this host was aborted"):
            attach(driver, step)
        with pytest.raises(InstanceNotFound):  # it may be tried again
            attach(driver, step)

    def test_an_unplugged_device_stays_prepared(
        self, driver: LibvirtDriver, domain: Domain, step: Step
    ) -> None:
        attach(driver, step)
        for _ in range(2):
            driver.unplug(step, step.devices[0])
            assert domain.addresses() == (set(), set())
            assert driver_of(driver, VF) == "vfio-pci"
        attach(driver, step)
        assert domain.addresses() == ({VF}, {VF})

    def test_a_guest_that_does_not_release_the_device_keeps_it(
        self, driver: LibvirtDriver, domain: Domain, step: Step
    ) -> None:
        attach(driver, step)
        domain.deaf = True
        with pytest.raises(DriverError, match="does not release"):
            driver.unplug(step, step.devices[0])

    def test_there_is_nothing_to_unplug_if_the_guest_has_gone(
        self, driver: LibvirtDriver, daemon: Libvirtd, domain: Domain, step: Step
    ) -> None:
        attach(driver, step)
        daemon.domains.remove(domain)
        driver.unplug(step, step.devices[0])
        assert driver_of(driver, VF) == "vfio-pci"


class TestEvents:
    """libvirt tells the driver when a domain comes, so that the driver need not ask."""

    @pytest.fixture
    def heard(self, driver: LibvirtDriver, monkeypatch: pytest.MonkeyPatch) -> Queue[UUID | None]:
        monkeypatch.setattr(libvirt_events, "_RECONNECT_AFTER", 0.01)
        heard: Queue[UUID | None] = Queue()
        driver.watch(heard.put)
        assert heard.get(timeout=PATIENCE) is None  # the domains that came before
        return heard

    @pytest.mark.parametrize(
        "event",
        [
            libvirt.VIR_DOMAIN_EVENT_DEFINED,
            libvirt.VIR_DOMAIN_EVENT_STARTED,
            libvirt.VIR_DOMAIN_EVENT_RESUMED,
            libvirt.VIR_DOMAIN_EVENT_STOPPED,
        ],
        ids=["defined", "started", "resumed", "stopped"],
    )
    def test_a_domain_comes(
        self, daemon: Libvirtd, domain: Domain, heard: Queue[UUID | None], event: int
    ) -> None:
        daemon.tell(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, domain, event, 0)
        assert heard.get(timeout=PATIENCE) == INSTANCE

    def test_a_domain_gets_a_device(
        self, daemon: Libvirtd, domain: Domain, heard: Queue[UUID | None]
    ) -> None:
        daemon.tell(libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, domain, "hostdev0")
        assert heard.get(timeout=PATIENCE) == INSTANCE

    def test_a_domain_that_is_suspended_is_no_news(
        self, daemon: Libvirtd, domain: Domain, heard: Queue[UUID | None]
    ) -> None:
        daemon.tell(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, domain, libvirt.VIR_DOMAIN_EVENT_SUSPENDED, 0)
        daemon.tell(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, Domain(str(OTHER)), 0, 0)
        assert heard.get(timeout=PATIENCE) == OTHER

    def test_after_a_restart_of_libvirtd_it_looks_at_all_domains_again(
        self, daemon: Libvirtd, domain: Domain, heard: Queue[UUID | None]
    ) -> None:
        daemon.restart()
        daemon.is_up = True
        assert heard.get(timeout=PATIENCE) is None
        daemon.tell(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, domain, libvirt.VIR_DOMAIN_EVENT_DEFINED, 0)
        assert heard.get(timeout=PATIENCE) == INSTANCE


class TestRefused:
    @pytest.mark.parametrize("held", [PF, VF])
    @pytest.mark.parametrize("wanted", [PF, VF])
    def test_a_device_if_another_domain_has_it_or_its_pf_or_vf(
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

    def test_a_device_in_the_configuration_of_a_domain_that_is_shut_off(
        self, driver: LibvirtDriver, daemon: Libvirtd, domain: Domain, step: Step
    ) -> None:
        other = Domain(str(OTHER), active=False)
        other.attachDeviceFlags(by_another_hand(VF), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        daemon.domains.append(other)
        with pytest.raises(DriverError, match=f"{VF} is already in instance {OTHER}"):
            attach(driver, step)
        assert domain.addresses() == (set(), set())

    def test_a_detach_that_the_guest_does_not_complete(
        self, driver: LibvirtDriver, domain: Domain, step: Step
    ) -> None:
        attach(driver, step)
        domain.deaf = True
        with pytest.raises(DriverError, match=f"instance {INSTANCE} does not release {VF}"):
            detach(driver, step)
        assert driver_of(driver, VF) == "vfio-pci"
        domain.deaf = False
        detach(driver, step)
        assert driver_of(driver, VF) == "iavf"


def test_a_domain_that_ends_while_domains_are_listed_is_skipped(
    driver: LibvirtDriver, daemon: Libvirtd, domain: Domain, step: Step
) -> None:
    attach(driver, step)
    daemon.domains.insert(0, Domain(str(OTHER)))
    daemon.domains[0].ended = True
    assert [held.address for held in driver.attachments()] == [VF]


def test_the_driver_reconnects_to_a_restarted_daemon(driver: LibvirtDriver, daemon: Libvirtd) -> None:
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

    def test_a_call_times_out_and_no_further_calls_are_made_meanwhile(
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

    def test_a_step_fails_and_its_device_stays_on_the_host(
        self, driver: LibvirtDriver, daemon: Libvirtd, domain: Domain, step: Step
    ) -> None:
        daemon.answers.clear()
        with pytest.raises(NoAnswer):
            attach(driver, step)
        assert driver_of(driver, VF) == "iavf"
        assert domain.addresses() == (set(), set())

    def test_the_last_known_attachments_stay_held_back(
        self, driver: LibvirtDriver, daemon: Libvirtd, domain: Domain, scanner: Scanner, tmp_path: Path
    ) -> None:
        domain.attachDeviceFlags(by_another_hand(VF), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        repair = Repair(driver, scanner, Ledger(tmp_path / "steps.sqlite"), lambda _job: None)
        known = repair.held_back()
        assert list(known) == [VF]
        daemon.answers.clear()
        assert repair.held_back() == known


def test_a_device_handed_over_but_not_attached_is_still_recorded(
    driver: LibvirtDriver, domain: Domain, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same state remains if an agent is killed after the hand-over and before the attach."""

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


def test_an_error_of_the_call_is_raised_to_the_caller() -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        Deadline("somebody", 60.0).ask(fail)
