"""The claim comes first: the devices are prepared, and a real domain gets them when it comes."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from oslo_config import cfg

from portclaim import hostdev_xml
from portclaim.common.rpc.claim_messages import Claim
from portclaim.services.compute_agent.agent import ComputeAgent
from tests.hardware.conftest import NUM_VFS, driver_of, run, vfs_of
from tests.hardware.guests import Guest
from tests.hardware.test_fleet import Fleet, conf, fleet, host

libvirt = pytest.importorskip("libvirt")

__all__ = ["conf", "fleet", "host"]  # fixtures
pytestmark = pytest.mark.parametrize("conf", ["libvirt"], indirect=True)


@pytest.fixture
def agent(connection: object, conf: cfg.ConfigOpts) -> Iterator[ComputeAgent]:
    conf.set_override("report_interval", 2.0, "compute_agent")
    agent = ComputeAgent(conf)
    agent.start()
    yield agent
    agent.stop()
    conf.clear_override("report_interval", "compute_agent")


def prepared(fleet: Fleet, alias: str = "nic-pf", **request: object) -> Claim:
    claim = fleet.wait_for(fleet.claim(alias, **request), "prepared")
    for device in claim.devices:
        assert driver_of(device.address) == "vfio-pci"
        assert vfs_of(device.address) == []
    return claim


def hostdevs(domain: object) -> tuple[int, int]:
    """How many it has in its configuration, and now."""
    flags = (libvirt.VIR_DOMAIN_XML_INACTIVE, 0)
    inactive, live = (domain.XMLDesc(flag).count("<hostdev") for flag in flags)  # type: ignore[attr-defined]
    return inactive, live


def given_back(fleet: Fleet, claim: Claim) -> None:
    fleet.release(claim)
    fleet.wait_for(claim, "released")
    [device] = claim.devices
    if device.dev_type == "type-PF":
        assert (driver_of(device.address), len(vfs_of(device.address))) == ("igb", NUM_VFS[device.address])


@pytest.mark.usefixtures("agent")
class TestTheDomainComes:
    def test_with_the_pasted_xml_the_guest_sees_the_port_at_boot(
        self, fleet: Fleet, make_guest: Callable[..., Guest]
    ) -> None:
        claim = prepared(fleet)
        xml = "".join(hostdev_xml(claim))
        guest = make_guest("pasted", running=True, uuid=claim.instance_id, hostdevs=xml)
        fleet.wait_for(claim, "allocated")
        assert hostdevs(guest.domain) == (1, 1)
        assert guest.says("GUEST sees 1")
        given_back(fleet, claim)
        assert hostdevs(guest.domain) == (0, 0)
        guest.domain.destroy()

    @pytest.mark.parametrize("managed", [True, False])
    def test_the_pasted_xml_may_be_managed_or_not(
        self, fleet: Fleet, make_guest: Callable[..., Guest], managed: bool
    ) -> None:
        claim = prepared(fleet, "nic-vf")
        xml = "".join(hostdev_xml(claim, managed=managed))
        name = f"managed-{managed}"
        guest = make_guest(name, running=False, uuid=claim.instance_id, hostdevs=xml)
        fleet.wait_for(claim, "allocated")
        assert hostdevs(guest.domain) == (1, 1)
        guest.domain.destroy()
        given_back(fleet, claim)

    def test_without_xml_the_agent_attaches_the_port(
        self, fleet: Fleet, make_guest: Callable[..., Guest]
    ) -> None:
        claim = prepared(fleet)
        guest = make_guest("plain", running=False, uuid=claim.instance_id)
        fleet.wait_for(claim, "allocated")
        assert hostdevs(guest.domain) == (1, 1)
        guest.domain.destroy()
        given_back(fleet, claim)

    def test_a_domain_that_is_only_defined_has_the_port_at_boot(
        self, fleet: Fleet, make_guest: Callable[..., Guest]
    ) -> None:
        claim = prepared(fleet)
        guest = make_guest("defined", running=False, uuid=claim.instance_id, started=False)
        fleet.wait_for(claim, "allocated")
        assert hostdevs(guest.domain)[0] == 1
        guest.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        assert hostdevs(guest.domain) == (1, 1)
        guest.domain.destroy()
        given_back(fleet, claim)

    def test_the_caller_says_when(self, fleet: Fleet, make_guest: Callable[..., Guest]) -> None:
        claim = prepared(fleet, attach="on-call")
        guest = make_guest("called", running=False, uuid=claim.instance_id)
        assert hostdevs(guest.domain) == (0, 0)
        fleet.attach(claim)
        fleet.wait_for(claim, "allocated")
        assert hostdevs(guest.domain) == (1, 1)
        guest.domain.destroy()
        given_back(fleet, claim)

    def test_a_domain_keeps_its_port_when_it_is_destroyed_and_started_again(
        self, fleet: Fleet, make_guest: Callable[..., Guest]
    ) -> None:
        claim = prepared(fleet)
        guest = make_guest("restarted", running=False, uuid=claim.instance_id)
        fleet.wait_for(claim, "allocated")
        for _ in range(10):
            guest.domain.destroy()
            guest.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
            assert hostdevs(guest.domain) == (1, 1)
        assert fleet.wait_for(claim, "allocated").step == claim.step
        guest.domain.destroy()
        given_back(fleet, claim)

    def test_a_domain_keeps_its_port_when_it_is_suspended_reset_and_rebuilt(
        self, fleet: Fleet, make_guest: Callable[..., Guest], connection: Any
    ) -> None:
        claim = prepared(fleet)
        guest = make_guest("rebuilt", running=False, uuid=claim.instance_id)
        fleet.wait_for(claim, "allocated")
        guest.domain.resume()
        guest.domain.suspend()
        assert hostdevs(guest.domain) == (1, 1)
        guest.domain.reset()
        assert hostdevs(guest.domain) == (1, 1)
        xml = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        guest.domain.destroy()
        rebuilt = connection.defineXML(xml)
        rebuilt.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        assert hostdevs(rebuilt) == (1, 1)
        assert fleet.wait_for(claim, "allocated").step == claim.step
        rebuilt.destroy()
        given_back(fleet, claim)

    def test_libvirtd_restarts_before_the_domain_comes(
        self, fleet: Fleet, make_guest: Callable[..., Guest]
    ) -> None:
        claim = prepared(fleet)
        os.kill(int(run("pidof", "libvirtd")), signal.SIGTERM)
        run("lab-libvirtd")
        guest = make_guest("after", running=False, uuid=claim.instance_id)
        fleet.wait_for(claim, "allocated")
        assert hostdevs(guest.domain) == (1, 1)
        guest.domain.destroy()
        given_back(fleet, claim)


@pytest.mark.usefixtures("agent")
def test_a_domain_that_never_comes_gives_its_port_back(fleet: Fleet) -> None:
    claim = prepared(fleet, guest_within=1)
    ended = fleet.wait_for(claim, "expired")
    assert ended.reason == "its instance did not get the devices within 1 s of their preparation"
    [device] = claim.devices
    assert (driver_of(device.address), len(vfs_of(device.address))) == ("igb", NUM_VFS[device.address])


def test_a_domain_that_is_undefined_while_the_agent_is_down_ends_its_claim(
    connection: object,
    conf: cfg.ConfigOpts,
    fleet: Fleet,
    make_guest: Callable[..., Guest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("portclaim.services.compute_agent.reporter.REPAIR_INTERVAL", 5.0)
    monkeypatch.setattr("portclaim.services.compute_agent.steps.GONE_AFTER", 10.0)
    conf.set_override("report_interval", 2.0, "compute_agent")
    first = ComputeAgent(conf)
    first.start()
    claim = prepared(fleet)
    guest = make_guest("undefined", running=False, uuid=claim.instance_id)
    fleet.wait_for(claim, "allocated")
    first.stop()
    guest.domain.destroy()
    guest.domain.undefine()
    second = ComputeAgent(conf)
    second.start()
    fleet.wait_for(claim, "failed")
    [device] = claim.devices
    assert (driver_of(device.address), len(vfs_of(device.address))) == ("igb", NUM_VFS[device.address])
    second.stop()
    conf.clear_override("report_interval", "compute_agent")


def test_a_domain_that_comes_while_the_agent_is_down_gets_its_port(
    connection: object,
    conf: cfg.ConfigOpts,
    fleet: Fleet,
    make_guest: Callable[..., Guest],
) -> None:
    instance: UUID = uuid4()
    first = ComputeAgent(conf)
    first.start()
    claim = prepared(fleet, instance_id=instance)
    first.stop()
    guest = make_guest("meanwhile", running=False, uuid=instance)
    second = ComputeAgent(conf)
    second.start()
    fleet.wait_for(claim, "allocated")
    assert hostdevs(guest.domain) == (1, 1)
    guest.domain.destroy()
    given_back(fleet, claim)
    second.stop()
