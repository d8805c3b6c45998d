"""PostgreSQL itself refuses a double booking, even in SQL that is typed by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from tests.support.concurrency import meanwhile, wait_until_blocked
from tests.support.fleet import Fleet, gpu, pf, vf

TREE_RULE = "held_vf_has_unheld_pf"
CLAIM_RULE = "held_by_a_live_claim_of_its_host"
HOLDER_RULE = "live_claim_holds_a_device"
PARENT_RULE = "parent_is_a_pf_of_the_same_host"

ENDED = ("released", "failed", "expired")


@contextmanager
def refused(constraint: str) -> Iterator[None]:
    """PostgreSQL refuses the statements of the block, at the latest at the commit, and names the rule."""
    with pytest.raises(sa.exc.IntegrityError) as caught:
        yield
    assert caught.value.orig.diag.constraint_name == constraint


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    """The SQL of these tests writes less than a claim does, so `tests.support.invariants` is not checked."""
    fleet = Fleet(database_url)
    yield fleet
    fleet.close()


@pytest.fixture(autouse=True)
def _two_hosts(fleet: Fleet) -> None:
    fleet.host("h1", ports=2, vfs=2)
    fleet.host("h2", ports=2, vfs=2)


TAKE = """
    UPDATE pci_devices SET status = 'claimed', claim_id = :claim_id
     WHERE address = :address AND compute_node_id = (SELECT id FROM compute_nodes WHERE host = :host)
"""
ADD_CLAIM = """
    INSERT INTO claims (id, instance_id, compute_node_id, request, first_device_id, status)
    SELECT :claim_id, gen_random_uuid(), n.id, '{}', d.id, :status
      FROM compute_nodes n
      JOIN pci_devices d ON d.compute_node_id = n.id
     WHERE n.host = :host AND d.address = :address
"""
ADD_DEVICE = """
    INSERT INTO pci_devices (compute_node_id, parent_id, pool_id, offered, address, dev_type, status)
    SELECT n.id, (SELECT p.id FROM pci_devices p JOIN compute_nodes pn ON pn.id = p.compute_node_id
                   WHERE pn.host = :parent_host AND p.address = :parent),
           (SELECT min(id) FROM pools), true, :address, :dev_type, 'available'
      FROM compute_nodes n WHERE n.host = :host
"""


def take(fleet: Fleet, host: str, address: str) -> UUID:
    """Book a device for a new claim by hand."""
    claim_id = uuid4()
    with fleet.engine.begin() as connection:
        take_in(connection, claim_id, host, address)
    return claim_id


def take_in(connection: sa.Connection, claim_id: UUID, host: str, address: str) -> None:
    device = {"claim_id": claim_id, "host": host, "address": address}
    connection.execute(sa.text(ADD_CLAIM), device | {"status": "claimed"})
    connection.execute(sa.text(TAKE), device)


def add_device(fleet: Fleet, dev_type: str, parent: str | None, **changes: Any) -> None:
    facts = {"host": "h1", "parent_host": "h1", "address": "0000:99:00.0"}
    fleet.sql(ADD_DEVICE, **facts | {"dev_type": dev_type, "parent": parent} | changes)


class TestTwoHoldersOfOneTree:
    def test_one_device_can_be_taken_by_hand(self, fleet: Fleet) -> None:
        take(fleet, "h1", vf(0, 0))
        assert fleet.status("h1")[vf(0, 0)] == "claimed"

    def test_a_vf_under_a_held_pf_cannot_be_taken(self, fleet: Fleet) -> None:
        take(fleet, "h1", pf(0))
        with refused(TREE_RULE):
            take(fleet, "h1", vf(0, 1))

    def test_a_pf_above_a_held_vf_cannot_be_taken(self, fleet: Fleet) -> None:
        take(fleet, "h1", vf(0, 1))
        with refused(TREE_RULE):
            take(fleet, "h1", pf(0))

    def test_a_pf_and_its_vf_cannot_be_taken_for_one_claim(self, fleet: Fleet) -> None:
        claim_id = take(fleet, "h1", pf(0))
        with refused(TREE_RULE):
            fleet.sql(TAKE, claim_id=claim_id, host="h1", address=vf(0, 0))

    def test_a_pf_and_its_vf_cannot_both_be_allocated(self, fleet: Fleet) -> None:
        take(fleet, "h1", pf(0))
        fleet.sql("UPDATE pci_devices SET status = 'allocated' WHERE status = 'claimed'")
        with refused(TREE_RULE):
            take(fleet, "h1", vf(0, 1))

    def test_a_held_vf_cannot_be_moved_under_a_held_pf(self, fleet: Fleet) -> None:
        take(fleet, "h1", vf(0, 0))
        take(fleet, "h1", pf(1))
        with refused(TREE_RULE):
            fleet.sql(
                "UPDATE pci_devices vf SET parent_id = pf.id FROM pci_devices pf"
                " WHERE vf.address = :vf AND pf.address = :pf AND pf.compute_node_id = vf.compute_node_id"
                " AND NOT vf.unheld",
                pf=pf(1),
                vf=vf(0, 0),
            )

    def test_one_statement_cannot_take_a_pf_and_its_vf(self, fleet: Fleet) -> None:
        claim_id = take(fleet, "h1", vf(1, 0))
        with refused(TREE_RULE):
            fleet.sql(
                "UPDATE pci_devices SET status = 'claimed', claim_id = :id WHERE address IN (:pf, :vf)",
                id=claim_id,
                pf=pf(0),
                vf=vf(0, 0),
            )


class TestTwoConnectionsAtOnce:
    """A statement waits for the uncommitted changes of the other connection."""

    @pytest.mark.parametrize(
        ("first", "second"), [(vf(0, 0), pf(0)), (pf(0), vf(0, 0))], ids=["vf-then-pf", "pf-then-vf"]
    )
    def test_the_second_connection_is_refused_when_the_first_commits(
        self, fleet: Fleet, first: str, second: str
    ) -> None:
        with fleet.engine.connect() as connection:
            take_in(connection, uuid4(), "h1", first)
            other = meanwhile(lambda: take(fleet, "h1", second))
            wait_until_blocked(fleet.engine)
            connection.commit()
            with refused(TREE_RULE):
                other.result()

    @pytest.mark.parametrize(
        ("first", "second"), [(vf(0, 0), pf(0)), (pf(0), vf(0, 0))], ids=["vf-then-pf", "pf-then-vf"]
    )
    def test_the_second_connection_is_served_when_the_first_rolls_back(
        self, fleet: Fleet, first: str, second: str
    ) -> None:
        with fleet.engine.connect() as connection:
            take_in(connection, uuid4(), "h1", first)
            other = meanwhile(lambda: take(fleet, "h1", second))
            wait_until_blocked(fleet.engine)
            connection.rollback()
            other.result()
        assert fleet.status("h1")[second] == "claimed"

    def test_two_vfs_of_one_port_do_not_wait_for_each_other(self, fleet: Fleet) -> None:
        with fleet.engine.connect() as connection:
            take_in(connection, uuid4(), "h1", vf(0, 0))
            take(fleet, "h1", vf(0, 1))
            connection.commit()
        assert fleet.status("h1")[vf(0, 0)] == fleet.status("h1")[vf(0, 1)] == "claimed"

    def test_one_device_cannot_be_taken_by_two_claims(self, fleet: Fleet) -> None:
        with fleet.engine.connect() as connection:
            take_in(connection, uuid4(), "h1", vf(0, 0))
            other = meanwhile(lambda: take(fleet, "h1", vf(0, 0)))
            wait_until_blocked(fleet.engine)
            connection.commit()
            with refused(HOLDER_RULE):
                other.result()


class TestDeviceAndClaim:
    """A device is held if and only if it names its claim, which is live and on the device's host."""

    def test_a_device_cannot_be_held_without_a_claim(self, fleet: Fleet) -> None:
        for status in ("claimed", "allocated"):
            with refused("held_names_its_claim"):
                fleet.sql(f"UPDATE pci_devices SET status = '{status}' WHERE address = '{vf(0, 0)}'")

    def test_a_free_device_cannot_name_a_claim(self, fleet: Fleet) -> None:
        claim_id = take(fleet, "h1", vf(0, 0))
        for status in ("available", "unclaimable", "unavailable", "removed"):
            with refused("held_names_its_claim"):
                fleet.sql(f"UPDATE pci_devices SET status = '{status}' WHERE claim_id = '{claim_id}'")

    def test_a_device_cannot_be_held_by_an_unknown_claim(self, fleet: Fleet) -> None:
        with refused(CLAIM_RULE):
            fleet.sql(TAKE, claim_id=uuid4(), host="h1", address=vf(0, 0))

    def test_a_device_cannot_be_held_by_an_ended_claim(self, fleet: Fleet) -> None:
        for ended in ENDED:
            device = {"claim_id": uuid4(), "host": "h1", "address": vf(0, 0)}
            fleet.sql(ADD_CLAIM, **device, status=ended)
            with refused(CLAIM_RULE):
                fleet.sql(TAKE, **device)

    def test_a_claim_cannot_end_while_it_holds_a_device(self, fleet: Fleet) -> None:
        claim_id = take(fleet, "h1", vf(0, 0))
        for ended in ENDED:
            with refused(CLAIM_RULE):
                fleet.sql("UPDATE claims SET status = :ended WHERE id = :id", ended=ended, id=claim_id)

    def test_a_device_cannot_be_held_by_a_claim_of_another_host(self, fleet: Fleet) -> None:
        claim_id = take(fleet, "h1", vf(0, 0))
        with refused(CLAIM_RULE):
            fleet.sql(TAKE, claim_id=claim_id, host="h2", address=vf(1, 0))

    def test_a_claim_cannot_change_to_another_host_than_its_devices(self, fleet: Fleet) -> None:
        claim_id = take(fleet, "h1", vf(0, 0))
        with refused(CLAIM_RULE):
            fleet.sql(
                "UPDATE claims SET compute_node_id = (SELECT id FROM compute_nodes WHERE host = 'h2')"
                " WHERE id = :id",
                id=claim_id,
            )

    def test_a_live_claim_must_hold_a_device(self, fleet: Fleet) -> None:
        for live in ("claimed", "allocated", "releasing"):
            with refused(HOLDER_RULE):
                fleet.sql(ADD_CLAIM, claim_id=uuid4(), host="h1", address=vf(0, 0), status=live)

    def test_a_live_claim_cannot_lose_its_device(self, fleet: Fleet) -> None:
        claim_id = take(fleet, "h1", vf(0, 0))
        with refused(HOLDER_RULE):
            fleet.sql(
                "UPDATE pci_devices SET status = 'available', claim_id = NULL WHERE claim_id = :id",
                id=claim_id,
            )

    def test_a_device_cannot_change_from_one_live_claim_to_another(self, fleet: Fleet) -> None:
        take(fleet, "h1", vf(0, 0))
        with refused(HOLDER_RULE):
            take(fleet, "h1", vf(0, 0))

    def test_an_ended_claim_cannot_become_live_without_a_device(self, fleet: Fleet) -> None:
        device = {"claim_id": uuid4(), "host": "h1", "address": vf(0, 0)}
        fleet.sql(ADD_CLAIM, **device, status="released")
        with refused(HOLDER_RULE):
            fleet.sql("UPDATE claims SET status = 'allocated' WHERE id = :id", id=device["claim_id"])

    def test_a_held_device_and_its_claim_cannot_be_deleted(self, fleet: Fleet) -> None:
        claim_id = take(fleet, "h1", vf(0, 0))
        fleet.sql("DELETE FROM device_events")  # because it would keep the device from being deleted
        with refused(HOLDER_RULE):
            fleet.sql("DELETE FROM pci_devices WHERE claim_id = :id", id=claim_id)
        with refused(CLAIM_RULE):
            fleet.sql("DELETE FROM claims WHERE id = :id", id=claim_id)


class TestTheTree:
    """An address is one device; a VF, and nothing else, has a parent, which is a PF of its host."""

    def test_a_vf_cannot_have_a_pf_of_another_host(self, fleet: Fleet) -> None:
        with refused(PARENT_RULE):
            add_device(fleet, "type-VF", parent=pf(0), parent_host="h2")

    def test_a_pf_cannot_change_to_another_host_without_its_vfs(self, fleet: Fleet) -> None:
        fleet.host_of("h3", [])
        with refused(PARENT_RULE):
            fleet.sql(
                "UPDATE pci_devices SET compute_node_id = (SELECT id FROM compute_nodes WHERE host = 'h3')"
                " WHERE address = :pf AND compute_node_id = (SELECT id FROM compute_nodes WHERE host = 'h1')",
                pf=pf(0),
            )

    def test_the_parent_of_a_vf_must_be_a_pf(self, fleet: Fleet) -> None:
        fleet.host_of("h3", [gpu(9)])
        with refused(PARENT_RULE):
            add_device(fleet, "type-VF", host="h3", parent_host="h3", parent=pf(9))
        with refused(PARENT_RULE):
            add_device(fleet, "type-VF", parent=vf(0, 0))

    def test_a_pf_with_vfs_cannot_become_another_type(self, fleet: Fleet) -> None:
        with refused(PARENT_RULE):
            fleet.sql("UPDATE pci_devices SET dev_type = 'type-PCI' WHERE address = :pf", pf=pf(0))

    def test_a_vf_must_have_a_parent(self, fleet: Fleet) -> None:
        with refused("only_a_vf_has_a_parent"):
            add_device(fleet, "type-VF", parent=None)

    def test_only_a_vf_can_have_a_parent(self, fleet: Fleet) -> None:
        for dev_type in ("type-PF", "type-PCI"):
            with refused("only_a_vf_has_a_parent"):
                add_device(fleet, dev_type, parent=pf(0))

    def test_a_host_cannot_have_two_devices_at_one_address(self, fleet: Fleet) -> None:
        with refused("pci_devices_compute_node_id_address_key"):
            add_device(fleet, "type-PCI", parent=None, address=pf(0))

    def test_two_hosts_can_have_a_device_at_the_same_address(self, fleet: Fleet) -> None:
        add_device(fleet, "type-PCI", parent=None)
        add_device(fleet, "type-PCI", parent=None, host="h2")
        assert fleet.status("h1").keys() == fleet.status("h2").keys()

    def test_a_malformed_address_is_refused(self, fleet: Fleet) -> None:
        for text in ("81:00.0", "0000:81:00.8", "0000:81:20.0", "0000:81:00", "0000:8g:00.0", "0000:8A:00.0"):
            with refused("pci_devices_address_check"):
                add_device(fleet, "type-PCI", parent=None, address=text)
