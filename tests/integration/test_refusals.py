"""Counters of hosts say that no host can serve a claim. They lag behind, and are never wrong about it."""

from collections.abc import Sequence

import pytest

from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.agent_messages import DeviceReport, NumaCell
from portclaim.common.rpc.device_request import DeviceRequest
from portclaim.services.scheduler import room
from tests.support.concurrency import at_once
from tests.support.fleet import Fleet, Host, pf, port_devices, slice_of
from tests.support.invariants import violations

BLUE_PF = DeviceRequest(count=1, spec=[{"dev_type": "type-PF", "physical_network": "blue"}])
CELLS = [NumaCell(id=0, socket=0), NumaCell(id=1, socket=1)]


@pytest.fixture
def host(fleet: Fleet) -> Host:
    """A counted host with two ports of four VFs."""
    host = fleet.host("h1", ports=2, vfs=4)
    fleet.count_hosts()
    return host


def is_served(fleet: Fleet, alias: str, **facts: object) -> bool:
    served = fleet.explain(alias, **facts).served  # type: ignore[arg-type]
    try:
        claim = fleet.claim(alias, **facts)  # type: ignore[arg-type]
    except ClaimRefused:
        assert not served
        return False
    assert served
    fleet.release(claim)
    fleet.hosts[claim.host].done(claim, step=2)
    return True


@pytest.mark.usefixtures("host")
class TestChangesSinceTheCount:
    def test_a_claim(self, fleet: Fleet) -> None:
        fleet.claim("nic-vf:3")
        assert not is_served(fleet, "nic-vf:6")
        assert is_served(fleet, "nic-vf:5")
        assert not is_served(fleet, "nic-pf:2")

    def test_a_release(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:3")
        fleet.count_hosts()
        assert not is_served(fleet, "nic-vf:6")
        fleet.release(claim)
        host.done(claim, step=2)
        assert is_served(fleet, "nic-vf:8")
        assert is_served(fleet, "nic-pf:2")

    def test_a_new_host(self, fleet: Fleet) -> None:
        assert not is_served(fleet, "nic-pf:3")
        fleet.host("h2", ports=3, vfs=1)
        assert is_served(fleet, "nic-pf:3")

    def test_a_drained_host_and_its_return(self, fleet: Fleet) -> None:
        fleet.scheduler.drain("h1", "maintenance")
        assert not is_served(fleet, "nic-vf:1")
        fleet.count_hosts()
        fleet.scheduler.undrain("h1")
        assert is_served(fleet, "nic-vf:1")

    def test_a_drained_port(self, fleet: Fleet) -> None:
        fleet.scheduler.drain("h1", "flapping", pf(0))
        assert not is_served(fleet, "nic-pf:2")
        fleet.count_hosts()
        fleet.scheduler.undrain("h1", pf(0))
        assert is_served(fleet, "nic-pf:2")

    def test_a_port_with_other_tags(self, fleet: Fleet, host: Host) -> None:
        assert not is_served(fleet, "", requests=[BLUE_PF])
        reports(host, [*port_devices(0, 4), *port_devices(1, 4, tags={"physical_network": "blue"})])
        assert is_served(fleet, "", requests=[BLUE_PF])
        fleet.count_hosts()
        reports(host, [*port_devices(0, 4), *port_devices(1, 4)])
        assert not is_served(fleet, "", requests=[BLUE_PF])
        fleet.count_hosts()
        assert broken_rules(fleet) == []

    def test_a_port_on_another_numa_node(self, fleet: Fleet, host: Host) -> None:
        host.numa_cells = CELLS
        reports(host, port_devices(0, 4, numa_node=0))
        fleet.count_hosts()
        assert not is_served(fleet, "nic-vf:1", numa_cells=[1])
        reports(host, port_devices(0, 4, numa_node=1))
        assert is_served(fleet, "nic-vf:1", numa_cells=[1])
        fleet.count_hosts()
        assert not is_served(fleet, "nic-vf:1", numa_cells=[0])

    def test_vfs_that_were_removed(self, fleet: Fleet, host: Host) -> None:
        reports(host, [*port_devices(0, 4), *port_devices(1, 2)])
        assert not is_served(fleet, "nic-vf:7")
        fleet.count_hosts()
        reports(host, [*port_devices(0, 4), *port_devices(1, 4)])
        assert is_served(fleet, "nic-vf:8")


@pytest.mark.parametrize("counted", [True, False])
class TestExactNo:
    def test_vfs_of_one_port_on_different_numa_nodes(self, fleet: Fleet, counted: bool) -> None:
        """Such a port counts for every NUMA node, and its devices decide."""
        devices = [*port_devices(0, 2, numa_node=0), slice_of(0, 2, numa_node=1), slice_of(0, 3, numa_node=1)]
        fleet.host_of("h1", devices, CELLS)
        if counted:
            fleet.count_hosts()
        assert is_served(fleet, "nic-vf:2", numa_cells=[1])
        assert not is_served(fleet, "nic-vf:3", numa_cells=[1])

    def test_devices_that_are_enough_for_each_request_but_not_for_all(
        self, fleet: Fleet, counted: bool
    ) -> None:
        fleet.host("h1", ports=2, vfs=4)
        if counted:
            fleet.count_hosts()
        assert not is_served(fleet, "nic-pf:2,nic-vf:1")
        assert is_served(fleet, "nic-pf:1,nic-vf:4")
        assert not is_served(fleet, "nic-pf:1,nic-vf:5")

    def test_more_kinds_of_hosts_than_are_read_at_once(
        self, fleet: Fleet, counted: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "_KINDS", 2)
        for number in range(1, 10):
            fleet.host(f"h{number}", ports=2, vfs=number)
        if counted:
            fleet.count_hosts()
        assert not is_served(fleet, "nic-pf:2,nic-vf:1")
        fleet.host("h10", ports=3, vfs=5)
        assert is_served(fleet, "nic-pf:2,nic-vf:5")
        assert not is_served(fleet, "nic-pf:2,nic-vf:6")

    def test_a_refusal_of_many_kinds_is_true_at_one_moment(
        self, fleet: Fleet, counted: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One of two hosts can always serve the claim, in turn. Each is read by a statement of its own."""
        monkeypatch.setattr(room, "_KINDS", 1)
        hosts = [fleet.host("h1", ports=2, vfs=1), fleet.host("h2", ports=2, vfs=2)]
        for number in range(3, 9):
            fleet.claim("nic-vf:1", hosts=[fleet.host(f"h{number}", ports=2, vfs=number).name])
        holding = fleet.claim("nic-vf:1", hosts=["h1"])
        if counted:
            fleet.count_hosts()

        def swap() -> None:
            nonlocal holding
            for turn in range(1, 21):
                other = fleet.claim("nic-vf:1", hosts=[hosts[turn % 2].name])
                fleet.release(holding)
                hosts[1 - turn % 2].done(holding, step=2)
                holding = other

        def ask() -> None:
            for _ in range(40):
                fleet.explain("nic-pf:2,nic-vf:1")

        assert at_once([swap, ask, ask]) == [None] * 3
        assert broken_rules(fleet) == []


def reports(host: Host, devices: Sequence[DeviceReport]) -> None:
    """The host reports these devices from now on."""
    host.devices = {device.address: device for device in devices}
    host.report()


def broken_rules(fleet: Fleet) -> list[tuple[str, str]]:
    with fleet.engine.connect() as connection:
        return violations(connection)
