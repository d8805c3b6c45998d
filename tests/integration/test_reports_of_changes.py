"""A report may say only what has changed since the report that the conductor has."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from portclaim.common.rpc.agent_messages import DeviceReport, InventoryAnswer, InventoryReport, NumaCell
from portclaim.services.compute_agent.conductor_link import ConductorLink
from portclaim.services.compute_agent.inventory import Inventory
from tests.support.concurrency import meanwhile, wait_until_blocked
from tests.support.fleet import CONNECTX5, Fleet, Host, gpu, pf, port_devices, slice_of, vf
from tests.support.looking import all_are, fact


class Agent:
    """The agent of ``h1``, with all that it has sent. Change ``host``, then :meth:`report`."""

    host_name = "h1"

    def __init__(self, fleet: Fleet, devices: Sequence[DeviceReport]) -> None:
        self.sent: list[InventoryReport] = []
        self.host = Host(fleet, "h1", {device.address: device for device in devices})
        fleet.hosts["h1"] = self.host
        self._fleet = fleet
        self._link = ConductorLink(self, "h1", self.host.agent_id)  # type: ignore[arg-type]  # is like a client
        self.report()

    def report(self) -> list[tuple[str | None, int | None]]:
        """Report. Answers for each message its base_digest, shortened, and the number of its devices."""
        self.sent.clear()
        inventory = Inventory(list(self.host.devices.values()), self.host.numa_cells)
        self._link.publish(inventory, in_full=True)
        return [
            (
                report.base_digest and "changes",
                None if report.devices is None else len(report.devices),
            )
            for report in self.sent
        ]

    def can_report_changes(self) -> bool:
        return True

    def report_inventory(self, report: InventoryReport) -> InventoryAnswer:
        self.sent.append(report)
        return self._fleet.conductor.report_inventory(report)


Start = Callable[..., Agent]


@pytest.fixture
def start(fleet: Fleet) -> Start:
    """Starts the agent of a host, by default with two ports with four VFs each; it has reported all."""

    def begin(*devices: DeviceReport) -> Agent:
        default = [*port_devices(0, vfs=4), *port_devices(1, vfs=4)]
        return Agent(fleet, devices or default)

    return begin


class TestChanges:
    def test_a_changed_device_is_reported_alone(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        agent.host.change(vf(0, 1), numa_node=1, attributes={"driver": "vfio-pci"})
        assert agent.report() == [("changes", 1)]
        assert fact(fleet, vf(0, 1), "attributes") == {"driver": "vfio-pci"}
        assert fact(fleet, vf(0, 1), "numa_node") == 1

    def test_vfs_vanish_and_come_back(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        devices = dict(agent.host.devices)
        agent.host.lose(vf(1, 0), vf(1, 3))
        assert agent.report() == [("changes", 0)]
        assert agent.sent[0].removed == [vf(1, 0), vf(1, 3)]
        assert fleet.status("h1") == all_are("available", *agent.host.devices) | all_are(
            "removed", vf(1, 0), vf(1, 3)
        )
        assert fact(fleet, pf(1), "vfs") == 2
        agent.host.devices = devices
        assert agent.report() == [("changes", 2)]
        assert fleet.status("h1") == all_are("available", *devices)
        assert fact(fleet, pf(1), "vfs") == 4

    def test_a_port_vanishes_with_its_vfs(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        gone = [pf(1), *(vf(1, number) for number in range(4))]
        agent.host.lose(*gone)
        assert agent.report() == [("changes", 0)]
        assert fleet.status("h1") == all_are("available", *agent.host.devices) | all_are("removed", *gone)

    def test_a_new_card_comes(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        agent.host.add(*port_devices(2, vfs=2, card=CONNECTX5))
        assert agent.report() == [("changes", 3)]
        assert len(fleet.claim("roce-vf:2").devices) == 2

    def test_a_vf_moves_to_another_port(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        agent.host.change(vf(0, 0), parent_address=pf(1))
        assert agent.report() == [("changes", 1)]
        assert (fact(fleet, pf(0), "vfs"), fact(fleet, pf(1), "vfs")) == (3, 5)

    def test_a_port_loses_sriov(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        agent.host.lose(*(vf(1, number) for number in range(4)))
        agent.host.add(gpu(1))
        assert agent.report() == [("changes", 1)]
        assert fact(fleet, pf(1), "dev_type") == "type-PCI"
        assert len(fleet.claim("gpu:1").devices) == 1

    def test_only_what_has_changed_is_written(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        before = set(written(fleet))
        agent.host.change(vf(0, 1), attributes={"driver": "vfio-pci"})
        agent.report()
        assert [address for address, _ in set(written(fleet)) - before] == [vf(0, 1)]

    def test_numa_cells_may_change_alone(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        agent.host.numa_cells = [NumaCell(id=0, socket=0, cpus=[0, 1])]
        assert agent.report() == [("changes", 0)]
        [(cells,)] = fleet.sql("SELECT numa_cells FROM compute_nodes")
        assert cells == [{"id": 0, "socket": 0, "cpus": [0, 1]}]

    def test_vfs_that_may_come_back_are_removed_when_their_pf_is_in_order_without_them(
        self, fleet: Fleet, start: Start
    ) -> None:
        agent = start()
        agent.host.lose(vf(0, 0), vf(0, 1))
        agent.host.change(pf(0), unusable_reason="its VFs did not come back")
        assert agent.report() == [("changes", 1)]
        assert fleet.status("h1")[vf(0, 0)] == "unavailable"
        agent.host.change(pf(0), unusable_reason=None)
        assert agent.report() == [("changes", 1)]
        assert fleet.status("h1") == all_are("available", *agent.host.devices) | all_are(
            "removed", vf(0, 0), vf(0, 1)
        )


class TestHeld:
    """What a claim holds does not change, whatever the changes say."""

    def test_a_held_vf_that_vanishes_is_removed_after_its_release(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        claim = fleet.claim("nic-vf:1")
        agent.host.done(claim)
        [held] = [device.address for device in claim.devices]
        agent.host.lose(held)
        assert agent.report() == [("changes", 0)]
        assert fleet.status("h1")[held] == "allocated"
        agent.host.done(fleet.release(claim))
        agent.host.change(vf(1, 0), numa_node=1)
        assert agent.report() == [("changes", 1), (None, 9)], "the conductor asks for all after the release"
        assert fleet.status("h1")[held] == "removed"

    def test_a_pf_goes_to_a_guest_and_comes_home(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        claim = fleet.claim("nic-pf:1")
        port = 0 if claim.devices[0].address == pf(0) else 1
        vfs = [vf(port, number) for number in range(4)]
        devices = dict(agent.host.devices)
        agent.host.lose(*vfs)
        agent.host.change(pf(port), attributes={"driver": "vfio-pci"})
        assert agent.report() == [("changes", 1)]
        agent.host.done(claim)
        fleet.release(claim)
        agent.host.devices = devices
        assert agent.report() == [("changes", 5)]
        agent.host.done(claim)
        assert fleet.status("h1") == all_are("available", *devices)

    def test_another_card_in_the_slot_of_a_held_device(self, fleet: Fleet, start: Start) -> None:
        agent = start(*port_devices(0, vfs=2))
        claim = fleet.claim("nic-vf:1")
        agent.host.add(*port_devices(0, vfs=2, card=CONNECTX5))
        assert agent.report() == [("changes", 3)]
        assert fact(fleet, claim.devices[0].address, "present") is False
        agent.host.failed(claim, "this is another device")
        agent.host.change(vf(0, 0), numa_node=1)
        assert agent.report() == [("changes", 1), (None, 3)]
        assert len(fleet.claim("roce-vf:2").devices) == 2


class TestAllIsWanted:
    """The conductor cannot use the changes. It changes nothing and asks for the whole inventory."""

    def test_the_conductor_has_another_inventory(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        fleet.sql("UPDATE compute_nodes SET inventory_digest = 'of a restored backup'")
        agent.host.change(vf(0, 1), numa_node=1)
        assert agent.report() == [("changes", 1), (None, 10)]
        assert fact(fleet, vf(0, 1), "numa_node") == 1
        agent.host.change(vf(0, 1), numa_node=0)
        assert agent.report() == [("changes", 1)], "from now on both have the same again"

    def test_an_operator_made_the_conductor_forget(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        fleet.sql("UPDATE compute_nodes SET inventory_digest = NULL")
        agent.host.change(vf(0, 1), numa_node=1)
        assert agent.report() == [("changes", 1), (None, 10)]

    def test_the_same_changes_twice_are_applied_once(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        agent.host.change(vf(0, 1), numa_node=1)
        agent.report()
        before = fleet.contents()["pci_devices"]
        assert not agent.report_inventory(agent.sent[0]).resend
        assert fleet.contents()["pci_devices"] == before

    @pytest.mark.parametrize(
        ("devices", "removed"),
        [
            ([slice_of(5, 0)], []),
            ([], [pf(0)]),
            ([gpu(0)], []),
            ([slice_of(0, 9).model_copy(update={"parent_address": vf(0, 0)})], []),
            ([slice_of(1, 0).model_copy(update={"parent_address": pf(0)})], [pf(0)]),
        ],
        ids=["a PF that is not there", "a PF without its VFs", "a PF that is none", "a VF", "a removed PF"],
    )
    def test_changes_that_leave_a_vf_without_a_pf(
        self, fleet: Fleet, start: Start, devices: Sequence[DeviceReport], removed: Sequence[str]
    ) -> None:
        agent = start()
        base = agent.host.inventory
        before = fleet.contents()
        [(digest,)] = fleet.sql("SELECT inventory_digest FROM compute_nodes")
        changes = {"digest": "new", "base_digest": digest, "devices": list(devices), "removed": list(removed)}
        assert agent.report_inventory(base.model_copy(update=changes)).resend
        assert fleet.contents()["pci_devices"] == before["pci_devices"]
        assert fleet.contents()["pools"] == before["pools"]


class TestLocks:
    """A report waits only for claims on the ports whose trees it changes."""

    @pytest.mark.parametrize("in_full", [False, True], ids=["changes", "all devices"])
    def test_a_port_that_has_not_changed_may_be_locked(
        self, fleet: Fleet, start: Start, in_full: bool
    ) -> None:
        agent = start()
        if in_full:
            fleet.sql("UPDATE compute_nodes SET inventory_digest = NULL")
        with fleet.engine.connect() as claim:
            claim.execute(sa.text("SELECT FROM pci_devices WHERE address = :pf FOR UPDATE"), {"pf": pf(1)})
            agent.host.change(vf(0, 0), numa_node=1)
            agent.report()
            claim.rollback()
        assert fact(fleet, vf(0, 0), "numa_node") == 1

    def test_a_changed_port_that_is_locked_is_waited_for(self, fleet: Fleet, start: Start) -> None:
        agent = start()
        with fleet.engine.connect() as claim:
            claim.execute(sa.text("SELECT FROM pci_devices WHERE address = :pf FOR UPDATE"), {"pf": pf(1)})
            agent.host.lose(vf(1, 0))
            report = meanwhile(agent.report)
            wait_until_blocked(fleet.engine)
            claim.rollback()
        assert report.result() == [("changes", 0)]
        assert fleet.status("h1")[vf(1, 0)] == "removed"


def test_a_changed_vf_costs_much_less_than_the_first_report(fleet: Fleet) -> None:
    """Of 8 ports with 64 VFs each, in buffers. Seconds depend on the machine: bench/inventory.py."""
    before = touched(fleet)
    agent = Agent(fleet, [device for port in range(8) for device in port_devices(port, vfs=64)])
    first = touched(fleet) - before

    def cost(reason: str) -> int:
        agent.host.change(vf(3, 3), unusable_reason=reason)
        before = touched(fleet)
        agent.report()
        return touched(fleet) - before

    assert 0 < cost("one") < first / 50
    fleet.sql("UPDATE compute_nodes SET inventory_digest = NULL")
    assert cost("another") < first / 5, "all devices are reported, to find the one that has changed"


def written(fleet: Fleet) -> list[tuple[str, str]]:
    """The address of each device, and the transaction that wrote its row."""
    rows: Any = fleet.sql("SELECT address, xmin::text FROM pci_devices")
    return list(rows)


def touched(fleet: Fleet) -> int:
    """The buffers touched so far in this database."""
    fleet.sql("SELECT pg_stat_force_next_flush()")
    [(buffers,)] = fleet.sql("""
        SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0))
          FROM pg_statio_user_tables
    """)
    return int(buffers)
