"""The compute agent as a process, with a conductor, a scheduler, RabbitMQ and PostgreSQL as they are."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from portclaim.common import config
from portclaim.common.errors import ClaimRefused, HostIsAlive
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.agent import ComputeAgent
from tests.support.concurrency import wait_until
from tests.support.one_host import HOST, PATIENCE, PF, VFS, OneHost, one_host
from tests.support.services import Services, as_ini


@pytest.fixture
def fleet(service_process: Services, tmp_path: Path) -> Iterator[OneHost]:
    with one_host(service_process, tmp_path) as fleet:
        yield fleet


def test_a_pf_is_attached_to_a_guest_and_restored(fleet: OneHost) -> None:
    fleet.start_agent()
    assert fleet.statuses() == dict.fromkeys([PF, *VFS], "available")

    claim = fleet.claim("pf:1")
    fleet.wait_for(claim.claim_id, "allocated")
    assert fleet.statuses() == {PF: "allocated"} | dict.fromkeys(VFS, "unavailable")
    assert fleet.devices_in_tree().isdisjoint(VFS)

    fleet.scheduler.release(claim.claim_id)
    fleet.wait_for(claim.claim_id, "released")
    assert fleet.statuses() == dict.fromkeys([PF, *VFS], "available")
    assert fleet.devices_in_tree().issuperset(VFS)
    assert fleet.effects() == [("attach", PF), ("detach", PF)]


def test_a_port_is_drained_while_its_agent_serves(fleet: OneHost) -> None:
    agent = fleet.start_agent()
    whole = fleet.claim("pf:1").claim_id
    fleet.wait_for(whole, "allocated")
    assert fleet.scheduler.drain(HOST, "flapping link", PF) == 1
    fleet.wait_for_report()
    assert fleet.statuses() == {PF: "allocated"} | dict.fromkeys(VFS, "unavailable")

    fleet.scheduler.release(whole)
    fleet.wait_for(whole, "released")
    assert fleet.effects() == [("attach", PF), ("detach", PF)]
    wait_until(lambda: fleet.devices_in_tree().issuperset(VFS), "the VFs are back on the host")
    for _ in range(2):
        assert fleet.statuses() == dict.fromkeys([PF, *VFS], "unavailable")
        with pytest.raises(ClaimRefused, match="drained: node-1: flapping link"):
            fleet.claim("vf:1")
        agent.stop()
        agent = fleet.start_agent()  # it scans and reports its devices again

    fleet.scheduler.undrain(HOST, PF)
    assert fleet.statuses() == dict.fromkeys([PF, *VFS], "available")
    fleet.wait_for(fleet.claim("vf:1").claim_id, "allocated")


def test_an_attach_that_fails_frees_the_devices_and_says_why(fleet: OneHost) -> None:
    fleet.start_agent()
    fleet.trouble(action="attach", error="instance not found")
    claim = fleet.wait_for(fleet.claim("vf:2").claim_id, "failed")
    assert claim.reason == "instance not found"
    assert fleet.statuses() == dict.fromkeys([PF, *VFS], "available")
    assert fleet.effects() == []


def test_a_detach_that_fails_keeps_the_devices_until_it_succeeds(fleet: OneHost) -> None:
    fleet.start_agent()
    claim = fleet.claim("vf:1")
    fleet.wait_for(claim.claim_id, "allocated")
    fleet.trouble(action="detach", error="the guest does not let go")
    fleet.scheduler.release(claim.claim_id)
    wait_until(
        lambda: fleet.scheduler.show(claim.claim_id).reason == "the guest does not let go",
        "the failed detach is reported",
    )
    assert fleet.scheduler.show(claim.claim_id).status == "releasing"
    fleet.trouble()
    fleet.wait_for(claim.claim_id, "released")
    assert [action for action, _ in fleet.effects()] == ["attach", "detach"]


def test_a_killed_agent_finishes_its_step_after_a_restart(fleet: OneHost) -> None:
    agent = fleet.start_agent()
    fleet.trouble(address=VFS[2], delay=PATIENCE)
    claim = fleet.claim("vf:4")
    wait_until(lambda: len(fleet.effects()) >= 2, "two of four VFs are attached")
    agent.kill()
    fleet.trouble()
    fleet.start_agent()
    fleet.wait_for(claim.claim_id, "allocated")
    assert sorted(fleet.effects()) == [("attach", address) for address in VFS]


def test_a_claim_released_while_the_agent_was_down_is_detached_after_a_restart(fleet: OneHost) -> None:
    agent = fleet.start_agent()
    claim = fleet.claim("pf:1")
    fleet.wait_for(claim.claim_id, "allocated")
    agent.kill()
    fleet.scheduler.release(claim.claim_id)
    fleet.start_agent()
    fleet.wait_for(claim.claim_id, "released")
    assert fleet.statuses() == dict.fromkeys([PF, *VFS], "available")
    assert fleet.effects() == [("attach", PF), ("detach", PF)]


def test_a_claim_whose_attach_is_late_expires_and_is_detached(
    fleet: OneHost, service_process: Services
) -> None:
    fleet.start_agent()
    fleet.trouble(action="attach", delay=2.0)
    service_process("conductor", {"conductor": {"expire_after": 0.5}})
    claim = fleet.claim("pf:1")
    expired = fleet.wait_for(claim.claim_id, "expired")
    assert expired.reason == "not prepared within 0.5 s"
    assert fleet.statuses() == dict.fromkeys([PF, *VFS], "available")
    assert fleet.effects() == [("attach", PF), ("detach", PF)]


def test_a_claim_of_a_stopped_agent_expires_after_the_agent_restarts(
    fleet: OneHost, service_process: Services
) -> None:
    fleet.start_agent().kill()
    claim = fleet.claim("vf:1")
    service_process("conductor", {"conductor": {"expire_after": 0.5}})
    fleet.wait_for(claim.claim_id, "releasing")
    assert "claimed" in fleet.statuses().values()
    fleet.start_agent()
    fleet.wait_for(claim.claim_id, "expired")
    assert fleet.statuses() == dict.fromkeys([PF, *VFS], "available")
    assert fleet.effects() == []


def test_a_claim_released_by_force_is_detached_when_the_host_comes_back(
    fleet: OneHost, database_url: str
) -> None:
    agent = fleet.start_agent()
    claim = fleet.claim("pf:1")
    fleet.wait_for(claim.claim_id, "allocated")
    with pytest.raises(HostIsAlive):
        fleet.scheduler.force_release(claim.claim_id, "ann", "it looks so dead")
    agent.kill()
    falls_silent(database_url)
    assert fleet.scheduler.force_release(claim.claim_id, "ann", "it has burnt down").status == "released"
    assert set(fleet.statuses().values()) == {"unavailable"}
    fleet.trouble(action="detach", delay=2.0)
    fleet.start_agent()
    assert "available" not in {fleet.statuses()[address] for address in [PF, *VFS]}
    wait_until(lambda: set(fleet.statuses().values()) == {"available"}, "all devices are available")
    assert fleet.effects() == [("attach", PF), ("detach", PF)]
    assert fleet.scheduler.show(claim.claim_id).status == "released"


def falls_silent(database_url: str) -> None:
    """Make it look as if no agent had reported for an hour."""
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE compute_nodes SET last_seen = now() - interval '1 hour'"))
    engine.dispose()


def test_a_device_that_a_guest_has_lost_is_attached_again_at_the_next_start(fleet: OneHost) -> None:
    agent = fleet.start_agent()
    claim = fleet.claim("vf:1")
    fleet.wait_for(claim.claim_id, "allocated")
    agent.stop()
    with closing(sqlite3.connect(fleet.state / HOST / "hypervisor.sqlite")) as record, record:
        record.execute("DELETE FROM attachments")
    fleet.start_agent()
    wait_until(lambda: len(fleet.effects()) == 2, "the VF is attached again")
    assert fleet.effects()[0] == fleet.effects()[1]
    assert fleet.scheduler.show(claim.claim_id).status == "allocated"


def test_on_sigterm_the_agent_finishes_and_reports_its_step(fleet: OneHost) -> None:
    agent = fleet.start_agent()
    fleet.trouble(action="attach", delay=1.0)
    claim = fleet.claim("pf:1")
    wait_until(lambda: "begun" in states(fleet, claim.claim_id), "the step has begun")
    agent.stop()
    assert fleet.scheduler.show(claim.claim_id).status == "allocated"
    assert fleet.effects() == [("attach", PF)]


def states(fleet: OneHost, claim_id: UUID) -> set[str]:
    with closing(sqlite3.connect(fleet.state / HOST / "steps.sqlite")) as ledger:
        rows = ledger.execute("SELECT outcome FROM steps WHERE claim_id = ?", (str(claim_id),)).fetchall()
    return {outcome or "begun" for (outcome,) in rows}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_malformed_messages_do_not_stop_the_agent(fleet: OneHost) -> None:
    agent = fleet.start_agent()
    for message in [
        Step.model_construct(action="attach"),
        Step.model_construct(action="attach", claim_id="me", step="1", surprise=None),
        Step.model_construct(action="detach", claim_id=str(uuid4()), devices=[]),
        Step.model_construct(action="explode"),
    ]:
        fleet.agent.send(message)
    fleet.wait_for(fleet.claim("vf:1").claim_id, "allocated")
    assert "refused a message for attach" in agent.log


def test_a_second_agent_of_the_same_host_on_one_machine_does_not_start(
    fleet: OneHost, tmp_path: Path
) -> None:
    fleet.start_agent()
    file = tmp_path / "second.conf"
    file.write_text(as_ini(fleet.options()))
    second = subprocess.run(
        [sys.executable, "-m", "portclaim.services.compute_agent", "--config-file", file],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert second.returncode == 1
    assert f"another agent of host {HOST} is running" in second.stderr


def test_of_two_agents_of_the_same_host_on_two_machines_only_one_works(
    fleet: OneHost, tmp_path: Path
) -> None:
    first = fleet.start_agent()
    options = fleet.options()
    options["DEFAULT"]["state_path"] = tmp_path / "other"
    options["compute_agent"]["sysfs_root"] = tmp_path / "other/sys"
    file = tmp_path / "second.conf"
    file.write_text(as_ini(options))
    second = ComputeAgent(config.load(["--config-file", str(file)], "test"))
    starting = threading.Thread(target=second.start)
    starting.start()
    try:
        for _ in range(3):
            claim = fleet.claim("vf:1")
            fleet.wait_for(claim.claim_id, "allocated")
        assert len(fleet.effects()) == 3
        assert starting.is_alive()

        first.kill()
        starting.join(PATIENCE)
        assert not starting.is_alive()
    finally:
        second.stop()
        starting.join()
