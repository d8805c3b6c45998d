"""The compute agent as a process, with a conductor, a scheduler, RabbitMQ and PostgreSQL as they are."""

import json
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
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest, DeviceFilter
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.operator_messages import HostFilter
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.services.compute_agent.agent import ComputeAgent
from tests.support.concurrency import wait_until
from tests.support.services import ServiceProcess, Services, as_ini

HOST = "node-1"
PF = "0000:01:00.0"
VFS = ["0000:01:10.0", "0000:01:10.2", "0000:01:10.4", "0000:01:10.6"]
PATIENCE = 60.0  # seconds after which a test has failed
ALIASES = [
    '{"name": "pf", "vendor_id": "8086", "product_id": "1572", "device_type": "type-PF"}',
    '{"name": "vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}',
]


class Fleet:
    """One host with one port of four VFs, its agent, and an API layer's view of it."""

    def __init__(
        self, services: Services, scheduler: SchedulerClient, agent: ComputeAgentClient, state: Path
    ) -> None:
        self.scheduler = scheduler
        self.agent = agent
        self.state = state
        self._services = services

    @property
    def sysfs_root(self) -> Path:
        return self.state / "sys"

    def options(self) -> dict[str, dict[str, object]]:
        return {
            "DEFAULT": {
                "host": HOST,
                "state_path": self.state,
                "transport_url": self._services.transport_url,
            },
            "pci": {"device_spec": json.dumps({"vendor_id": "8086"})},
            "compute_agent": {"sysfs_root": self.sysfs_root, "report_interval": 0.5},
            "simulated": {"ports": 1, "vfs_per_port": 4, "accelerators": 1},
        }

    def start_agent(self) -> ServiceProcess:
        return self._services("compute_agent", self.options())

    def claim(self, alias_spec: str) -> Claim:
        request = ClaimRequest(
            claim_id=uuid4(), instance_id=uuid4(), extra_specs={"pci_passthrough:alias": alias_spec}
        )
        return self.scheduler.claim(request)

    def wait_for(self, claim_id: UUID, status: str) -> Claim:
        wait_until(lambda: self.scheduler.show(claim_id).status == status, f"the claim is {status}")
        return self.scheduler.show(claim_id)

    def wait_for_report(self) -> None:
        """Until its agent has been heard once more."""
        last = 0.0

        def is_heard() -> bool:
            nonlocal last
            [host] = self.scheduler.hosts(HostFilter()).hosts
            before, last = last, host.agent_silent_for
            return last < before

        wait_until(is_heard, "its agent is heard")

    def statuses(self) -> dict[str, str]:
        listed = self.scheduler.devices(DeviceFilter(host=HOST)).devices
        return {device.address: device.effective_status for device in listed}

    def devices_in_tree(self) -> set[str]:
        return {path.name for path in (self.sysfs_root / "bus/pci/devices").iterdir()}

    def effects(self) -> list[tuple[str, str]]:
        """What the hypervisor did, in its own words."""
        with closing(sqlite3.connect(self.state / HOST / "hypervisor.sqlite")) as record:
            return record.execute("SELECT action, address FROM effects ORDER BY id").fetchall()

    def trouble(self, **fault: object) -> None:
        """Give the hypervisor a fault; none takes it away."""
        file = self.state / HOST / "faults.json"
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps([fault] if fault else []))
        partial.rename(file)


@pytest.fixture
def fleet(service_process: Services, tmp_path: Path) -> Iterator[Fleet]:
    service_process("conductor", {"conductor": {"resend_after": 1.0, "agent_down_after": 2.0}})
    service_process("scheduler", {"pci": {"alias": ALIASES}})
    file = tmp_path / "client.conf"
    file.write_text(as_ini({"DEFAULT": {"transport_url": service_process.transport_url}}))
    conf = config.load(["--config-file", str(file)], "test")
    bus = transport(conf)
    state = tmp_path / "host"
    state.mkdir()
    agent = ComputeAgentClient(bus, conf, server=HOST)
    yield Fleet(service_process, SchedulerClient(bus, conf), agent, state)
    bus.cleanup()


def test_a_port_goes_to_a_guest_and_comes_home(fleet: Fleet) -> None:
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


def test_a_port_is_drained_while_its_agent_serves(fleet: Fleet) -> None:
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
        agent = fleet.start_agent()  # what it finds, it reports anew

    fleet.scheduler.undrain(HOST, PF)
    assert fleet.statuses() == dict.fromkeys([PF, *VFS], "available")
    fleet.wait_for(fleet.claim("vf:1").claim_id, "allocated")


def test_an_attach_that_fails_frees_the_devices_and_says_why(fleet: Fleet) -> None:
    fleet.start_agent()
    fleet.trouble(action="attach", error="instance not found")
    claim = fleet.wait_for(fleet.claim("vf:2").claim_id, "failed")
    assert claim.reason == "instance not found"
    assert fleet.statuses() == dict.fromkeys([PF, *VFS], "available")
    assert fleet.effects() == []


def test_a_detach_that_fails_keeps_the_devices_until_it_succeeds(fleet: Fleet) -> None:
    fleet.start_agent()
    claim = fleet.claim("vf:1")
    fleet.wait_for(claim.claim_id, "allocated")
    fleet.trouble(action="detach", error="the guest does not let go")
    fleet.scheduler.release(claim.claim_id)
    wait_until(
        lambda: fleet.scheduler.show(claim.claim_id).reason == "the guest does not let go",
        "the failed detach is told",
    )
    assert fleet.scheduler.show(claim.claim_id).status == "releasing"
    fleet.trouble()
    fleet.wait_for(claim.claim_id, "released")
    assert [action for action, _ in fleet.effects()] == ["attach", "detach"]


def test_a_killed_agent_finishes_its_step_once_it_is_back(fleet: Fleet) -> None:
    agent = fleet.start_agent()
    fleet.trouble(address=VFS[2], delay=PATIENCE)
    claim = fleet.claim("vf:4")
    wait_until(lambda: len(fleet.effects()) >= 2, "two of four VFs are attached")
    agent.kill()
    fleet.trouble()
    fleet.start_agent()
    fleet.wait_for(claim.claim_id, "allocated")
    assert sorted(fleet.effects()) == [("attach", address) for address in VFS]


def test_what_was_released_while_the_agent_was_away_is_taken_back(fleet: Fleet) -> None:
    agent = fleet.start_agent()
    claim = fleet.claim("pf:1")
    fleet.wait_for(claim.claim_id, "allocated")
    agent.kill()
    fleet.scheduler.release(claim.claim_id)
    fleet.start_agent()
    fleet.wait_for(claim.claim_id, "released")
    assert fleet.statuses() == dict.fromkeys([PF, *VFS], "available")
    assert fleet.effects() == [("attach", PF), ("detach", PF)]


def test_a_claim_expires_though_its_attach_comes_late(fleet: Fleet, service_process: Services) -> None:
    fleet.start_agent()
    fleet.trouble(action="attach", delay=2.0)
    service_process("conductor", {"conductor": {"expire_after": 0.5}})
    claim = fleet.claim("pf:1")
    expired = fleet.wait_for(claim.claim_id, "expired")
    assert expired.reason == "not attached within 0.5 s"
    assert fleet.statuses() == dict.fromkeys([PF, *VFS], "available")
    assert fleet.effects() == [("attach", PF), ("detach", PF)]


def test_a_claim_of_an_agent_that_is_away_expires_when_it_is_back(
    fleet: Fleet, service_process: Services
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


def test_what_was_released_by_force_is_taken_back_when_the_host_comes_back(
    fleet: Fleet, database_url: str
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
    wait_until(lambda: set(fleet.statuses().values()) == {"available"}, "all is free")
    assert fleet.effects() == [("attach", PF), ("detach", PF)]
    assert fleet.scheduler.show(claim.claim_id).status == "released"


def falls_silent(database_url: str) -> None:
    """Nobody has heard of any agent for an hour."""
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE compute_nodes SET last_seen = now() - interval '1 hour'"))
    engine.dispose()


def test_what_a_guest_has_lost_is_given_back_at_the_next_start(fleet: Fleet) -> None:
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


def test_sigterm_lets_the_step_in_hand_finish_and_tell(fleet: Fleet) -> None:
    agent = fleet.start_agent()
    fleet.trouble(action="attach", delay=1.0)
    claim = fleet.claim("pf:1")
    wait_until(lambda: "begun" in states(fleet, claim.claim_id), "the step is in hand")
    agent.stop()
    assert fleet.scheduler.show(claim.claim_id).status == "allocated"
    assert fleet.effects() == [("attach", PF)]


def states(fleet: Fleet, claim_id: UUID) -> set[str]:
    with closing(sqlite3.connect(fleet.state / HOST / "steps.sqlite")) as ledger:
        rows = ledger.execute("SELECT outcome FROM steps WHERE claim_id = ?", (str(claim_id),)).fetchall()
    return {outcome or "begun" for (outcome,) in rows}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_no_message_ends_the_agent(fleet: Fleet) -> None:
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


def test_a_second_agent_of_the_name_on_this_machine_does_not_start(fleet: Fleet, tmp_path: Path) -> None:
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


def test_of_two_agents_of_one_name_on_two_machines_one_works(fleet: Fleet, tmp_path: Path) -> None:
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
