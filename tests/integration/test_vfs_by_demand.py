"""A port whose entry in device_spec has a range as num_vfs has VFs only while somebody wants them."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from portclaim.common import config
from portclaim.common.pci.address import PciAddress
from portclaim.common.rpc.claim_messages import DeviceFilter
from portclaim.services.compute_agent.agent import ComputeAgent
from portclaim.services.compute_agent.drivers.simulated_ports import SimulatedPorts
from tests.support.concurrency import wait_until
from tests.support.one_host import PATIENCE, PF, VFS, OneHost, one_host
from tests.support.services import ServiceProcess, Services, as_ini

BY_DEMAND = {"vendor_id": "8086", "num_vfs": "0-4"}
FIXED = {"vendor_id": "8086", "num_vfs": 4}
FREE = dict.fromkeys([PF, *VFS], "available")
NEVER = 3600


class Lab:
    """A host whose port has no VFs at first."""

    def __init__(self, fleet: OneHost, services: Services) -> None:
        self.fleet = fleet
        self._services = services
        fleet.pci = {"device_spec": json.dumps(BY_DEMAND)}
        fleet.simulated |= {"num_vfs": 0, "accelerators": 0}

    def start_agent(self, idle: float = NEVER) -> ServiceProcess:
        options = self.fleet.options()
        options["compute_agent"]["idle_vfs_removed_after"] = idle
        agent = self._services("compute_agent", options)
        self.fleet.wait_for_report()
        return agent

    def vfs(self) -> set[str]:
        return self.fleet.devices_in_tree() & set(VFS)

    def shown_on_host(self) -> dict[str, bool]:
        listed = self.fleet.scheduler.devices(DeviceFilter(host=self.fleet.name)).devices
        return {device.address: device.on_host for device in listed}

    def allocated(self, alias_spec: str) -> tuple[UUID, list[str]]:
        claim = self.fleet.wait_for(self.fleet.claim(alias_spec).claim_id, "allocated")
        return claim.claim_id, [device.address for device in claim.devices]

    def release(self, claim_id: UUID) -> None:
        self.fleet.scheduler.release(claim_id)
        self.fleet.wait_for(claim_id, "released")


@pytest.fixture
def lab(service_process: Services, tmp_path: Path) -> Iterator[Lab]:
    with one_host(service_process, tmp_path) as fleet:
        yield Lab(fleet, service_process)


def test_the_first_vf_that_is_claimed_makes_them_and_a_whole_port_has_none(lab: Lab) -> None:
    lab.start_agent()
    assert (lab.fleet.statuses(), lab.vfs()) == (FREE, set())
    assert lab.shown_on_host() == {PF: True} | dict.fromkeys(VFS, False)
    claim, [vf] = lab.allocated("vf:1")
    assert lab.vfs() == set(VFS)
    lab.fleet.wait_for_report()
    assert lab.shown_on_host() == dict.fromkeys([PF, *VFS], True)
    assert lab.fleet.statuses() == FREE | {PF: "unavailable", vf: "allocated"}
    lab.release(claim)
    assert (lab.fleet.statuses(), lab.vfs()) == (FREE, set(VFS))


def test_a_whole_port_is_given_and_comes_home_without_vfs(lab: Lab) -> None:
    lab.start_agent()
    claim, _ = lab.allocated("pf:1")
    assert lab.fleet.statuses() == {PF: "allocated"} | dict.fromkeys(VFS, "unavailable")
    lab.release(claim)
    assert (lab.fleet.statuses(), lab.vfs()) == (FREE, set())


def test_idle_vfs_are_removed_and_never_under_a_claim(lab: Lab) -> None:
    lab.start_agent(idle=0)
    one, [held] = lab.allocated("vf:1")
    other, _ = lab.allocated("vf:1")
    lab.release(other)
    lab.fleet.wait_for_report()
    lab.fleet.wait_for_report()
    assert lab.vfs() == set(VFS)
    assert lab.fleet.held() == {held}
    lab.release(one)
    wait_until(lambda: lab.vfs() == set(), "the idle VFs are removed")
    lab.fleet.wait_for_report()
    assert lab.fleet.statuses() == FREE
    lab.allocated("vf:4")


def test_while_idle_vfs_are_removed_reports_and_claims_of_other_devices_go_on(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may take long: here it answers only when the test allows it."""
    removing, may_end = threading.Event(), threading.Event()
    write = SimulatedPorts.set_num_vfs

    def slow(ports: SimulatedPorts, port: PciAddress, count: int) -> None:
        if count == 0:
            removing.set()
            assert may_end.wait(PATIENCE)
        write(ports, port, count)

    monkeypatch.setattr(SimulatedPorts, "set_num_vfs", slow)
    lab.fleet.simulated |= {"accelerators": 1}
    lab.fleet.pci = {"device_spec": [json.dumps(entry) for entry in (BY_DEMAND, {"vendor_id": "10de"})]}
    options = lab.fleet.options()
    options["compute_agent"]["idle_vfs_removed_after"] = 0
    file = tmp_path / "agent.conf"
    file.write_text(as_ini(options))
    agent = ComputeAgent(config.load(["--config-file", str(file)], "test"))
    agent.start()
    try:
        lab.release(lab.allocated("vf:1")[0])
        assert removing.wait(PATIENCE)
        for _ in range(2):
            lab.fleet.wait_for_report()
        lab.release(lab.allocated("gpu:1")[0])
        assert lab.vfs() == set(VFS)
        may_end.set()
        wait_until(lambda: lab.vfs() == set(), "the idle VFs are removed")
        lab.fleet.wait_for_report()
    finally:
        may_end.set()
        agent.stop()


def test_an_agent_that_is_killed_goes_on(lab: Lab) -> None:
    agent = lab.start_agent(idle=0)
    claim, [held] = lab.allocated("vf:1")
    agent.kill()
    agent = lab.start_agent(idle=0)
    lab.fleet.wait_for_report()
    assert (lab.fleet.held(), lab.vfs()) == ({held}, set(VFS))
    lab.release(claim)
    wait_until(lambda: lab.vfs() == set(), "the idle VFs are removed")
    agent.kill()
    lab.start_agent()
    assert lab.fleet.statuses() == FREE
    lab.allocated("vf:1")


def test_an_operator_changes_the_number_to_a_range_and_back(lab: Lab, service_process: Services) -> None:
    lab.fleet.pci = {"device_spec": json.dumps(FIXED)}
    agent = lab.start_agent(idle=0)
    assert lab.fleet.statuses() == {PF: "available"}

    def change(old: object, new: object, times: int) -> None:
        file = service_process.directory / f"{agent.name}.conf"
        file.write_text(file.read_text().replace(json.dumps(old), json.dumps(new)))
        os.kill(agent.process.pid, signal.SIGHUP)
        wait_until(lambda: agent.log.count("it is in force") == times, "the new section is in force")

    change(FIXED, BY_DEMAND, 1)
    wait_until(lambda: lab.fleet.statuses() == FREE, "the VFs are offered")
    claim, [held] = lab.allocated("vf:1")
    change(BY_DEMAND, FIXED, 2)
    lab.fleet.wait_for_report()
    assert lab.fleet.statuses() == FREE | {PF: "unavailable", held: "allocated"}
    lab.release(claim)
    lab.fleet.wait_for_report()
    lab.fleet.wait_for_report()
    assert (lab.fleet.statuses(), lab.vfs()) == (FREE, set(VFS))
