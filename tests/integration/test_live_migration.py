"""A guest migrates live between two simulated hosts, and its devices are exchanged by the agents."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from portclaim import ClaimEnded, WaitTimeout, connect
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.move_messages import Move, MoveRequest
from tests.support.concurrency import wait_until
from tests.support.one_host import OneHost, one_host
from tests.support.services import ServiceProcess, Services


@pytest.fixture
def source(service_process: Services, tmp_path: Path) -> Iterator[OneHost]:
    with one_host(service_process, tmp_path, guests="defined") as host:
        yield host


@pytest.fixture
def target(source: OneHost) -> OneHost:
    return source.beside("node-2")


@pytest.fixture
def agents(source: OneHost, target: OneHost) -> list[ServiceProcess]:
    return [source.start_agent(), target.start_agent()]


@pytest.fixture
def guest(source: OneHost, agents: list[ServiceProcess]) -> Claim:
    """A guest that runs on the source with two VFs."""
    claim = source.claim("vf:2", hosts=[source.name])
    source.guests.define(claim.instance_id)
    return source.wait_for(claim.claim_id, "allocated")


def begins(source: OneHost, claim: Claim, **request: object) -> MoveRequest:
    facts = {"claim_id": uuid4(), "source_claim_id": claim.claim_id, "live": True} | request
    move = MoveRequest.model_validate(facts)
    source.scheduler.move(move)
    return move


def until_ready(source: OneHost, request: MoveRequest) -> Move:
    """Wait until the guest can be migrated."""
    with connect(source.transport_url) as scheduler:
        return scheduler.wait_until_ready(request, timeout=30)


def migrates(source: OneHost, target: OneHost, instance_id: UUID) -> None:
    """What libvirt does: for a moment the guest is on both hosts."""
    target.guests.define(instance_id, arriving=True)
    target.guests.define(instance_id)
    source.guests.undefine(instance_id)


def has_moved(source: OneHost, target: OneHost, guest: Claim, request: MoveRequest) -> bool:
    """Wait until the move has ended. Has the guest the target's devices, and the source host its own?"""
    target.wait_for(request.claim_id, "allocated")
    source.wait_for(guest.claim_id, "released")
    return (len(source.held()), len(target.held()), source.prepared()) == (0, 2, set())


def has_stayed(source: OneHost, target: OneHost, guest: Claim) -> bool:
    source.wait_for(guest.claim_id, "allocated")
    wait_until(lambda: not target.prepared(), "the target host has its devices again")
    return (len(source.held()), len(target.held())) == (2, 0)


def test_the_guest_has_the_devices_of_one_host_only(source: OneHost, target: OneHost, guest: Claim) -> None:
    request = begins(source, guest)
    ready = until_ready(source, request)
    assert (ready.source.status, ready.target.status) == ("prepared", "prepared")
    assert source.held() == target.held() == set()
    migrates(source, target, guest.instance_id)
    assert has_moved(source, target, guest, request)
    assert set(source.statuses().values()) == {"available"}


def test_a_migration_that_is_given_up_leaves_the_guest_its_devices(
    source: OneHost, target: OneHost, guest: Claim
) -> None:
    request = begins(source, guest)
    until_ready(source, request)
    source.scheduler.revert_move(request.claim_id)
    assert has_stayed(source, target, guest)
    target.wait_for(request.claim_id, "released")
    assert set(target.statuses().values()) == {"available"}


def test_a_migration_that_libvirt_aborts_is_reverted_by_itself(
    source: OneHost, target: OneHost, guest: Claim
) -> None:
    request = begins(source, guest)
    until_ready(source, request)
    target.guests.define(guest.instance_id, arriving=True)
    target.guests.define(UUID(int=1))
    late = target.claim("vf:1", instance_id=UUID(int=1), hosts=[target.name])
    target.wait_for(late.claim_id, "allocated")  # the agent has seen that the guest is arriving
    assert source.scheduler.show(request.claim_id).status == "prepared"
    target.guests.undefine(guest.instance_id)
    ended = target.wait_for(request.claim_id, "failed")
    assert ended.reason == f"the migration of instance {guest.instance_id} to this host was aborted"
    source.wait_for(guest.claim_id, "allocated")
    assert len(source.held()) == 2


def test_who_waits_for_a_move_hears_that_it_was_given_up_or_is_late(
    source: OneHost, target: OneHost, guest: Claim
) -> None:
    source.trouble(action="unplug", error="the guest does not let go")
    request = begins(source, guest)
    with connect(source.transport_url) as scheduler:
        target.wait_for(request.claim_id, "prepared")
        with pytest.raises(WaitTimeout, match="its source is allocated and its target prepared"):
            scheduler.wait_until_ready(request, timeout=0.5)
        source.trouble()
        scheduler.revert_move(request.claim_id)
        with pytest.raises(ClaimEnded, match="is reverted"):
            scheduler.wait_until_ready(request)
    assert has_stayed(source, target, guest)


def test_the_agent_of_the_source_dies_while_it_unplugs_the_devices(
    source: OneHost, target: OneHost, guest: Claim, agents: list[ServiceProcess]
) -> None:
    source.trouble(action="unplug", delay=60.0)
    request = begins(source, guest)
    wait_until(lambda: source.scheduler.show(guest.claim_id).step == 2, "the source is to be unplugged")
    agents[0].kill()
    source.trouble()
    source.start_agent()
    until_ready(source, request)
    migrates(source, target, guest.instance_id)
    assert has_moved(source, target, guest, request)


def test_the_agent_of_the_source_dies_and_the_migration_is_given_up(
    source: OneHost, target: OneHost, guest: Claim, agents: list[ServiceProcess]
) -> None:
    request = begins(source, guest)
    until_ready(source, request)
    agents[0].kill()
    source.scheduler.revert_move(request.claim_id)
    source.start_agent()
    assert has_stayed(source, target, guest)


def test_the_agent_of_the_target_is_down_when_the_guest_arrives(
    source: OneHost, target: OneHost, guest: Claim, agents: list[ServiceProcess]
) -> None:
    request = begins(source, guest)
    until_ready(source, request)
    agents[1].kill()
    migrates(source, target, guest.instance_id)
    target.start_agent()
    assert has_moved(source, target, guest, request)


def test_a_target_that_cannot_attach_the_devices_gives_the_guest_the_old_ones_back(
    source: OneHost, target: OneHost, guest: Claim
) -> None:
    request = begins(source, guest)
    until_ready(source, request)
    target.trouble(action="attach", error="the guest has no slot left")
    target.guests.define(guest.instance_id)  # it is on both hosts, and the migration is aborted then
    target.wait_for(request.claim_id, "failed")
    assert has_stayed(source, target, guest)
