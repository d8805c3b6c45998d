"""Guests come after their claims. The simulated hypervisor has only the guests that a test defines."""

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from portclaim.common.rpc.claim_messages import Claim
from tests.support.concurrency import wait_until
from tests.support.one_host import PF, VFS, OneHost, one_host
from tests.support.services import ServiceProcess, Services


@pytest.fixture
def host(service_process: Services, tmp_path: Path) -> Iterator[OneHost]:
    with one_host(service_process, tmp_path, guests="defined") as host:
        yield host


@pytest.fixture
def agent(host: OneHost) -> ServiceProcess:
    return host.start_agent()


def prepared(host: OneHost, alias_spec: str = "vf:2", **request: object) -> Claim:
    """A claim whose devices are prepared. Its instance is not on the host yet."""
    return host.wait_for(host.claim(alias_spec, **request).claim_id, "prepared")


def addresses(claim: Claim) -> list[str]:
    return [device.address for device in claim.devices]


@pytest.mark.usefixtures("agent")
class TestTheGuestComes:
    def test_a_prepared_port_has_left_the_host(self, host: OneHost) -> None:
        claim = prepared(host, "pf:1")
        assert host.devices_in_tree().isdisjoint(VFS)
        assert host.statuses() == {PF: "claimed"} | dict.fromkeys(VFS, "unclaimable")
        assert host.effects() == []
        host.guests.define(claim.instance_id)
        host.wait_for(claim.claim_id, "allocated")
        assert host.effects() == [("attach", PF)]

    def test_the_agent_attaches_the_devices_when_the_guest_is_defined(self, host: OneHost) -> None:
        claim = prepared(host)
        host.guests.define(UUID(int=1))
        host.guests.define(claim.instance_id)
        host.wait_for(claim.claim_id, "allocated")
        assert sorted(host.effects()) == [("attach", address) for address in sorted(addresses(claim))]

    def test_the_guest_may_bring_the_devices_in_its_definition(self, host: OneHost) -> None:
        claim = prepared(host)
        host.guests.define(claim.instance_id, addresses(claim))
        host.wait_for(claim.claim_id, "allocated")
        assert host.effects() == []  # the agent had nothing to attach

    def test_a_guest_that_brings_one_of_two_devices_gets_the_other(self, host: OneHost) -> None:
        claim = prepared(host)
        first, second = addresses(claim)
        host.guests.define(claim.instance_id, [first])
        host.wait_for(claim.claim_id, "allocated")
        assert host.effects() == [("attach", second)]

    def test_the_caller_says_when(self, host: OneHost) -> None:
        claim = prepared(host, attach="on-call")
        host.guests.define(claim.instance_id)
        other = prepared(host, "vf:1")
        host.guests.define(other.instance_id)
        host.wait_for(other.claim_id, "allocated")  # the agent has heard of both
        assert host.scheduler.show(claim.claim_id).status == "prepared"
        host.scheduler.attach(claim.claim_id)
        host.wait_for(claim.claim_id, "allocated")

    def test_the_caller_says_so_before_the_guest_comes(self, host: OneHost) -> None:
        claim = prepared(host, attach="on-call")
        host.scheduler.attach(claim.claim_id)
        host.guests.define(claim.instance_id)
        host.wait_for(claim.claim_id, "allocated")

    def test_a_guest_that_was_there_first_gets_its_devices_in_one_step(self, host: OneHost) -> None:
        claim = prepared(host, "vf:1")
        host.guests.define(claim.instance_id)
        host.wait_for(claim.claim_id, "allocated")
        one_more = host.claim("vf:1", instance_id=claim.instance_id)
        host.wait_for(one_more.claim_id, "allocated")
        assert host.scheduler.show(one_more.claim_id).step == 1

    def test_guests_that_come_while_their_devices_are_prepared_all_get_them(self, host: OneHost) -> None:
        instances = [UUID(int=number) for number in range(1, 5)]
        callers = [threading.Thread(target=host.guests.define, args=(each,)) for each in instances]
        claims = [host.claim("vf:1", instance_id=each) for each in instances]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        for claim in claims:
            host.wait_for(claim.claim_id, "allocated")
        assert sorted(host.effects()) == [("attach", address) for address in VFS]


class TestTheAgentIsDown:
    def test_a_guest_that_came_meanwhile_is_found_at_the_start(
        self, host: OneHost, agent: ServiceProcess
    ) -> None:
        claim = prepared(host, "pf:1")
        agent.kill()
        host.guests.define(claim.instance_id)
        host.start_agent()
        host.wait_for(claim.claim_id, "allocated")

    def test_devices_in_its_definition_are_found_too(self, host: OneHost, agent: ServiceProcess) -> None:
        claim = prepared(host, attach="on-call")
        agent.stop()
        host.guests.define(claim.instance_id, addresses(claim))
        host.start_agent()
        host.wait_for(claim.claim_id, "allocated")
        assert host.effects() == []

    def test_a_prepared_claim_waits_on(self, host: OneHost, agent: ServiceProcess) -> None:
        claim = prepared(host)
        agent.kill()
        host.start_agent()
        host.wait_for_report()
        assert host.scheduler.show(claim.claim_id).status == "prepared"
        host.guests.define(claim.instance_id)
        host.wait_for(claim.claim_id, "allocated")

    def test_a_call_meanwhile_is_not_lost(self, host: OneHost, agent: ServiceProcess) -> None:
        claim = prepared(host, attach="on-call")
        host.guests.define(claim.instance_id)
        agent.kill()
        host.scheduler.attach(claim.claim_id)
        host.start_agent()
        host.wait_for(claim.claim_id, "allocated")

    def test_an_agent_that_is_killed_while_it_prepares_goes_on(
        self, host: OneHost, agent: ServiceProcess
    ) -> None:
        host.trouble(action="prepare", address=VFS[1], delay=60.0)
        claim = host.claim("vf:2")
        wait_until(lambda: VFS[0] in host.prepared(), "the first device is prepared")
        agent.kill()
        host.trouble()
        host.start_agent()
        host.wait_for(claim.claim_id, "prepared")


@pytest.mark.usefixtures("agent")
class TestTheGuestDoesNotCome:
    def test_the_devices_are_restored_and_the_claim_says_why(
        self, host: OneHost, service_process: Services
    ) -> None:
        service_process("conductor", {"conductor": {"guest_within": 1.0}})
        claim = host.claim("pf:1", guest_within=1)
        ended = host.wait_for(claim.claim_id, "expired")
        assert ended.reason == "its instance did not get the devices within 1 s of their preparation"
        assert host.statuses() == dict.fromkeys([PF, *VFS], "available")
        assert host.devices_in_tree().issuperset(VFS)

    def test_a_released_claim_gives_its_devices_back(self, host: OneHost) -> None:
        claim = prepared(host, "pf:1")
        host.scheduler.release(claim.claim_id)
        host.wait_for(claim.claim_id, "released")
        assert host.statuses() == dict.fromkeys([PF, *VFS], "available")
        host.guests.define(claim.instance_id)
        assert host.effects() == []

    def test_a_failed_attach_gives_its_devices_back(self, host: OneHost) -> None:
        claim = prepared(host)
        host.trouble(action="attach", error="the guest has no slot left")
        host.guests.define(claim.instance_id)
        assert host.wait_for(claim.claim_id, "failed").reason == "the guest has no slot left"
        assert host.statuses() == dict.fromkeys([PF, *VFS], "available")
