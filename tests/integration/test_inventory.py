"""Reports of agents change the devices in the database at once, but never a device that a claim holds."""

from typing import Any

import pytest

from tests.support.fleet import CONNECTX5, X710, Fleet, Host, gpu, pf, port_devices, slice_of, vf
from tests.support.looking import all_are, fact, fact_of


class TestNewChangedVanished:
    def test_a_new_host_has_its_devices_available(self, fleet: Fleet) -> None:
        fleet.host_of("h1", [*port_devices(0, vfs=2), gpu(1)])
        assert fleet.status("h1") == all_are("available", pf(0), vf(0, 0), vf(0, 1), pf(1))

    def test_a_host_may_report_no_devices(self, fleet: Fleet) -> None:
        fleet.host_of("h1", [])
        assert fleet.status("h1") == {}

    def test_devices_of_one_kind_share_a_pool_on_all_hosts(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=2)
        fleet.host("h2", ports=2, vfs=2)
        assert fleet.sql("SELECT dev_type FROM pools ORDER BY dev_type") == [("type-PF",), ("type-VF",)]

    def test_new_vfs_are_added(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=1)
        host.add(slice_of(0, 1))
        host.report()
        assert fleet.status("h1") == all_are("available", pf(0), vf(0, 0), vf(0, 1))

    def test_a_device_that_is_not_offered_is_unavailable(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=1)
        host.change(pf(0), offered=False)
        host.report()
        assert fleet.status("h1") == {pf(0): "unavailable", vf(0, 0): "available"}
        host.change(pf(0), offered=True)
        host.report()
        assert fleet.status("h1")[pf(0)] == "available"

    def test_a_device_that_cannot_be_used_now_is_unavailable_and_says_why(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=1)
        host.change(vf(0, 0), unusable_reason="bound to another driver")
        host.report()
        assert fleet.status("h1") == {pf(0): "available", vf(0, 0): "unavailable"}
        assert fact(fleet, vf(0, 0), "unusable_reason") == "bound to another driver"

    def test_other_facts_are_those_of_the_latest_report(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=1)
        host.change(vf(0, 0), numa_node=1, attributes={"driver": "vfio-pci"})
        host.report()
        assert fact(fleet, vf(0, 0), "numa_node") == 1
        assert fact(fleet, vf(0, 0), "attributes") == {"driver": "vfio-pci"}

    def test_changed_tags_put_a_device_into_another_pool(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=2)
        pool = fact(fleet, vf(0, 0), "pool_id")
        host.change(vf(0, 0), tags={"physical_network": "blue"})
        host.report()
        assert fact(fleet, vf(0, 0), "pool_id") != pool == fact(fleet, vf(0, 1), "pool_id")

    def test_a_vanished_device_is_removed_and_gets_its_row_back_when_it_returns(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=2)
        device_id, device = fact(fleet, vf(0, 1), "id"), host.devices[vf(0, 1)]
        host.lose(vf(0, 1))
        host.report()
        assert fleet.status("h1") == all_are("available", pf(0), vf(0, 0)) | {vf(0, 1): "removed"}
        host.add(device)
        host.report()
        assert fleet.status("h1") == all_are("available", pf(0), vf(0, 0), vf(0, 1))
        assert fact(fleet, vf(0, 1), "id") == device_id

    def test_a_vanished_pf_is_removed_with_its_vfs(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=2, vfs=1)
        host.lose(pf(0), vf(0, 0))
        host.report()
        assert fleet.status("h1") == all_are("removed", pf(0), vf(0, 0)) | all_are(
            "available", pf(1), vf(1, 0)
        )

    def test_another_card_in_the_same_slot_gets_its_own_kind(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=1)
        host.add(*port_devices(0, vfs=1, card=CONNECTX5))
        host.report()
        assert [d.product_id for d in fleet.claim("roce-vf:1").devices] == [CONNECTX5.vf]

    def test_a_report_does_not_change_other_hosts(self, fleet: Fleet) -> None:
        fleet.host("h1", vfs=2)
        fleet.host_of("h2", [])
        assert fleet.status("h1") == all_are("available", pf(0), vf(0, 0), vf(0, 1))

    def test_numa_cells_are_stored(self, fleet: Fleet) -> None:
        host = fleet.host("h1")
        report = host.inventory.model_dump() | {
            "digest": "2",
            "numa_cells": [{"id": 0, "socket": 0, "cpus": [0, 1]}],
        }
        fleet.conductor.report_inventory(type(host.inventory).model_validate(report))
        [(cells,)] = fleet.sql("SELECT numa_cells FROM compute_nodes")
        assert cells == [{"id": 0, "socket": 0, "cpus": [0, 1]}]


class TestInUse:
    """A held device does not change, whatever a report says or omits."""

    @pytest.fixture
    def host(self, fleet: Fleet) -> Host:
        return fleet.host("h1", ports=2, vfs=2)

    def test_a_held_vf_that_vanishes_is_removed_only_after_its_release(
        self, fleet: Fleet, host: Host
    ) -> None:
        claim = fleet.claim("nic-vf:1")
        held = claim.devices[0].address
        host.done(claim)
        host.lose(held)
        host.report()
        assert fleet.status("h1")[held] == "allocated"
        host.done(fleet.release(claim))
        assert fleet.status("h1")[held] == "unavailable"
        host.report()
        assert fleet.status("h1")[held] == "removed"

    def test_a_held_pf_and_its_vfs_are_not_removed(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-pf:1")
        host.done(claim)
        held = claim.devices[0].address
        port = 0 if held == pf(0) else 1
        host.lose(held, vf(port, 0), vf(port, 1))
        host.report()
        status = fleet.status("h1")
        assert (status[held], status[vf(port, 0)], status[vf(port, 1)]) == (
            "allocated",
            "unavailable",
            "unavailable",
        )

    def test_a_pf_with_a_held_vf_is_not_removed(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        parent = claim.devices[0].parent_address
        host.lose(*[d for d in host.devices if parent in (d, host.devices[d].parent_address)])
        host.report()
        assert fleet.status("h1")[parent] == "unclaimable"
        assert fleet.status("h1")[claim.devices[0].address] == "claimed"
        assert "removed" in fleet.status("h1").values()

    def test_the_vfs_of_a_held_pf_may_vanish_and_come_back(self, fleet: Fleet) -> None:
        """While a guest has a PF, its VFs do not exist on the host."""
        host = fleet.host("h3", ports=1, vfs=2)
        devices = dict(host.devices)
        claim = fleet.claim("nic-pf:1", hosts=["h3"])
        host.lose(vf(0, 0), vf(0, 1))
        host.report()
        host.done(claim)
        host.report()
        assert fleet.status("h3") == {pf(0): "allocated"} | all_are("unavailable", vf(0, 0), vf(0, 1))
        fleet.release(claim)
        host.devices = devices
        host.report()
        assert fleet.status("h3") == {pf(0): "allocated"} | all_are("unavailable", vf(0, 0), vf(0, 1))
        host.done(claim)
        assert fleet.status("h3") == all_are("available", pf(0), vf(0, 0), vf(0, 1))

    def test_vfs_that_do_not_come_back_cannot_be_claimed(self, fleet: Fleet) -> None:
        host = fleet.host("h3", ports=1, vfs=2)
        claim = fleet.claim("nic-pf:1", hosts=["h3"])
        host.done(claim)
        host.lose(vf(0, 0), vf(0, 1))
        host.report()
        fleet.release(claim)
        host.change(pf(0), unusable_reason="its VFs did not come back")
        host.report()
        host.done(claim)
        assert fleet.status("h3") == all_are("unavailable", pf(0), vf(0, 0), vf(0, 1))
        assert fact_of(fleet, "h3", pf(0), "unusable_reason") == "its VFs did not come back"
        host.report()
        assert fleet.status("h3") == all_are("unavailable", pf(0), vf(0, 0), vf(0, 1))

    def test_the_kind_of_a_held_device_does_not_change(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        held = claim.devices[0]
        host.add(*port_devices(0, vfs=2, card=CONNECTX5), *port_devices(1, vfs=2, card=CONNECTX5))
        host.report()
        assert [d.product_id for d in fleet.show(claim).devices] == [held.product_id]
        host.failed(claim, "this is another device")
        host.report()
        assert len(fleet.claim("roce-vf:4").devices) == 4


class TestChangedTrees:
    def test_vfs_with_new_addresses_are_new_devices(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=4)
        host.lose(*(vf(0, n) for n in range(4)))
        host.add(*(slice_of(0, n) for n in range(2, 6)))
        host.report()
        assert fleet.status("h1") == (
            all_are("removed", vf(0, 0), vf(0, 1))
            | all_are("available", pf(0), vf(0, 2), vf(0, 3), vf(0, 4), vf(0, 5))
        )

    def test_vfs_get_new_addresses_while_one_vf_is_held(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=2)
        held = fleet.claim("nic-vf:1").devices[0].address
        other = vf(0, 1) if held == vf(0, 0) else vf(0, 0)
        host.lose(vf(0, 0), vf(0, 1))
        host.add(slice_of(0, 4), slice_of(0, 5))
        host.report()
        assert fleet.status("h1") == (
            {pf(0): "unclaimable", held: "claimed", other: "removed"}
            | all_are("available", vf(0, 4), vf(0, 5))
        )

    def test_a_vf_may_move_to_another_port(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=2, vfs=1)
        host.change(vf(0, 0), parent_address=pf(1))
        host.report()
        claim = fleet.claim("nic-pf:1")
        host.done(claim)
        whole = claim.devices[0].address
        blocked = all_are("unavailable", vf(0, 0), vf(1, 0)) if whole == pf(1) else {}
        assert fleet.status("h1") == all_are("available", *host.devices) | blocked | {whole: "allocated"}

    def test_a_pf_may_become_a_plain_device_and_a_pf_again(self, fleet: Fleet) -> None:
        """SR-IOV is switched off in the firmware, and on again."""
        host = fleet.host("h1", vfs=2)
        with_vfs = dict(host.devices)
        host.lose(vf(0, 0), vf(0, 1))
        host.change(pf(0), dev_type="type-PCI")
        host.report()
        assert fleet.status("h1") == {pf(0): "available"} | all_are("removed", vf(0, 0), vf(0, 1))
        assert fact(fleet, pf(0), "dev_type") == "type-PCI"
        host.devices = with_vfs
        host.report()
        assert fleet.status("h1") == all_are("available", pf(0), vf(0, 0), vf(0, 1))
        assert fact(fleet, pf(0), "dev_type") == "type-PF"

    def test_a_held_plain_device_becomes_a_pf_after_its_release(self, fleet: Fleet) -> None:
        """Until then its VFs are not recorded; the rest of the report is."""
        host = fleet.host_of("h1", [gpu(0)])
        claim = fleet.claim("gpu:1")
        host.add(*port_devices(0, vfs=2), *port_devices(1, vfs=1))
        host.report()
        assert fleet.status("h1") == {pf(0): "claimed"} | all_are("available", pf(1), vf(1, 0))
        host.failed(claim, "this is another device")
        host.report()
        assert fleet.status("h1") == all_are("available", *host.devices)

    def test_an_unusable_pf_that_becomes_a_plain_device_has_no_vfs(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=2)
        host.lose(vf(0, 0), vf(0, 1))
        host.change(pf(0), dev_type="type-PCI", unusable_reason="it does not answer")
        host.report()
        assert fleet.status("h1") == {pf(0): "unavailable"} | all_are("removed", vf(0, 0), vf(0, 1))

    def test_a_pf_may_become_a_vf_of_another_port_and_a_pf_again(self, fleet: Fleet) -> None:
        """A one-port card replaces a two-port card: its VFs begin at the address of the second port."""
        host = fleet.host("h1", ports=2, vfs=1)
        with_two_ports = dict(host.devices)
        host.lose(vf(1, 0))
        host.change(pf(1), dev_type="type-VF", product_id=X710.vf, parent_address=pf(0))
        host.report()
        assert fleet.status("h1") == all_are("available", pf(0), vf(0, 0), pf(1)) | {vf(1, 0): "removed"}
        assert fleet.faults() == []
        claim = fleet.claim("nic-vf:2")
        assert {device.parent_address for device in claim.devices} == {pf(0)}
        host.failed(claim, "the card was changed again")
        host.devices = with_two_ports
        host.report()
        assert fleet.status("h1") == all_are("available", *host.devices)

    def test_the_number_of_vfs_of_a_port_is_up_to_date(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=2, vfs=2)
        for number in range(2):
            host.change(vf(0, number), parent_address=pf(1))
        host.report()
        assert (fact(fleet, pf(0), "vfs"), fact(fleet, pf(1), "vfs")) == (0, 4)
        host.lose(vf(0, 0), vf(0, 1), vf(1, 0), vf(1, 1))
        host.report()
        assert (fact(fleet, pf(0), "vfs"), fact(fleet, pf(1), "vfs")) == (0, 0)

    def test_a_pf_stays_a_pf_while_one_of_its_vfs_is_held(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=2)
        claim = fleet.claim("nic-vf:1")
        held = claim.devices[0].address
        host.lose(vf(0, 0), vf(0, 1))
        host.change(pf(0), dev_type="type-PCI")
        host.report()
        assert fact(fleet, pf(0), "dev_type") == "type-PF"
        assert fleet.status("h1")[held] == "claimed"
        host.failed(claim, "it is gone")
        host.report()
        assert fact(fleet, pf(0), "dev_type") == "type-PCI"
        assert fleet.status("h1") == {pf(0): "available"} | all_are("removed", vf(0, 0), vf(0, 1))

    def test_two_ports_may_swap_roles_in_one_report(self, fleet: Fleet) -> None:
        host = fleet.host_of("h1", [*port_devices(0, vfs=1), gpu(1)])
        host.lose(vf(0, 0))
        host.add(gpu(0), *port_devices(1, vfs=1))
        host.report()
        assert fleet.status("h1") == all_are("available", pf(0), pf(1), vf(1, 0)) | {vf(0, 0): "removed"}


class TestUnchanged:
    def test_a_report_without_devices_writes_only_last_seen(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=2, vfs=4)
        host.done(fleet.claim("nic-vf:1"))
        before = fleet.contents()
        assert not host.sign_of_life().resend
        assert only_last_seen_changed(before, fleet.contents())

    def test_repeating_a_report_writes_only_last_seen(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=2, vfs=4)
        before = fleet.contents()
        host.report()
        assert only_last_seen_changed(before, fleet.contents())

    def test_only_changed_devices_are_written(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=2, vfs=4)
        before = fleet.contents()
        host.change(vf(0, 1), attributes={"driver": "vfio-pci"})
        host.report()
        changed = set(versions(fleet.contents()["pci_devices"])) - set(versions(before["pci_devices"]))
        assert len(changed) == 1

    def test_a_device_removed_long_ago_does_not_ask_for_a_full_report(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=2)
        host.lose(vf(0, 1))
        host.report()
        host.done(fleet.release(fleet.claim("nic-vf:1")))
        assert not host.sign_of_life().resend

    def test_an_unknown_digest_asks_for_a_full_report(self, fleet: Fleet) -> None:
        host = fleet.host("h1", vfs=1)
        host.change(vf(0, 0), numa_node=1)
        assert host.sign_of_life().resend
        assert fact(fleet, vf(0, 0), "numa_node") == 0
        host.report()
        assert not host.sign_of_life().resend

    def test_the_first_report_of_a_host_must_be_full(self, fleet: Fleet) -> None:
        assert Host(fleet, "h1", {}).sign_of_life().resend


def versions(rows: list[tuple[str, str, dict[str, Any]]]) -> list[tuple[str, str]]:
    """The place of each row, and the transaction that wrote it."""
    return [(place, transaction) for place, transaction, _ in rows]


def only_last_seen_changed(before: dict[str, Any], after: dict[str, Any]) -> bool:
    nodes_before = [row for _, _, row in before.pop("compute_nodes")]
    nodes_after = [row for _, _, row in after.pop("compute_nodes")]
    moved = [row.pop("last_seen") for row in nodes_before] < [row.pop("last_seen") for row in nodes_after]
    return moved and nodes_before == nodes_after and before == after
