"""Each rule of ``tests.support.invariants`` finds what breaks it, and nothing in a correct database."""

import sqlalchemy as sa

from tests.support.fleet import Fleet
from tests.support.invariants import RULES, violations

# Statements that break each rule once the constraints are off. The fleet has an allocated PF, a claimed VF,
# a third port whose VFs were released, waiting claims, and a move.
BREAKS = {
    "a VF and its PF are both held": [
        "UPDATE pci_devices SET status = 'claimed', claim_id = :claimed WHERE parent_id = :whole",
    ],
    "two claims held a device at the same time": [
        "INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index)"
        " VALUES (:claimed, :whole, 1, 0)",
        "UPDATE claim_devices SET device_id = :whole WHERE claim_id = :claimed",
    ],
    "a held device has no live claim, or a free device has one": [
        "UPDATE claims SET status = 'released' WHERE id = :claimed",
        "UPDATE pci_devices SET claim_id = NULL WHERE claim_id = :claimed",
        "UPDATE pci_devices SET status = 'available' WHERE claim_id = :claimed",
    ],
    "a held device and its claim have different statuses": [
        "UPDATE claims SET status = 'allocated' WHERE id = :claimed",
        "UPDATE claims SET status = 'claimed' WHERE id = :allocated",
    ],
    "a live claim holds no device": [
        "UPDATE pci_devices SET status = 'available', claim_id = NULL WHERE claim_id = :claimed",
    ],
    "a claim holds a device of another host": [
        "UPDATE claims SET compute_node_id = (SELECT id FROM compute_nodes WHERE host = 'h2') WHERE live",
    ],
    "claim_devices and pci_devices name different holders of a device": [
        "UPDATE claim_devices SET held_until = now() WHERE claim_id = :claimed",
        "UPDATE claim_devices SET held_until = NULL WHERE claim_id = :ended",
        "DELETE FROM claim_devices WHERE claim_id = :allocated",
    ],
    "a device that no claim holds has the wrong status": [
        "UPDATE pci_devices SET status = 'available' WHERE status = 'unclaimable'",
        "UPDATE pci_devices SET status = 'unclaimable' WHERE parent_id = :whole",
        "UPDATE pci_devices SET status = 'unavailable' WHERE status = 'available'",
        "UPDATE pci_devices SET offered = false WHERE status = 'available'",
        "UPDATE pci_devices SET present = false WHERE status = 'available'",
        "UPDATE pci_devices SET unusable_reason = 'not in order' WHERE status = 'available'",
    ],
    "a removed device is marked as present": [
        "UPDATE pci_devices SET status = 'removed' WHERE id = :free",
    ],
    "the parent of a VF is not a PF of the same host": [
        "UPDATE pci_devices SET status = 'removed' WHERE id = :whole",
        "UPDATE pci_devices SET compute_node_id = 0 WHERE id = :whole",
        "UPDATE pci_devices SET dev_type = 'type-PCI' WHERE id = :whole",
    ],
    "a VF and its PF have different drained reasons": [
        "UPDATE pci_devices SET drained_reason = 'its link flaps' WHERE id = :whole",
        "UPDATE pci_devices SET drained_reason = 'its link flaps' WHERE id = :free",
    ],
    "a VF and its PF are reserved for different claims": [
        "UPDATE pci_devices SET reserved_for = NULL WHERE parent_id = (SELECT id FROM pci_devices"
        " WHERE reserved_for IS NOT NULL AND parent_id IS NULL)",
        "UPDATE pci_devices SET reserved_for = :first WHERE id = :free",
    ],
    "a port is reserved for a claim that is not the head of a queue": [
        "UPDATE pci_devices SET reserved_for = :second WHERE reserved_for IS NOT NULL",
        "UPDATE pci_devices SET reserved_for = :claimed WHERE reserved_for IS NOT NULL",
        "UPDATE waiting_claims SET position = position - 10 WHERE id = :second",
    ],
    "ports of several hosts are reserved for one claim": [
        "UPDATE pci_devices SET reserved_for = :first WHERE parent_id IS NULL",
    ],
    "a waiting claim is not in its queue, or a claim in a queue is not waiting": [
        "DELETE FROM waiting_claims WHERE id = :second",
        "UPDATE claims SET status = 'released' WHERE id = :second",
        """UPDATE waiting_claims SET requests = '{}' WHERE id = :second""",
    ],
    "a claim was served but has no host, or has a host but was not served": [
        "UPDATE claims SET compute_node_id = NULL WHERE id = :ended",
        "UPDATE claims SET compute_node_id = 1 WHERE id = :second",
    ],
    "a prepared claim has no time of its preparation, or another claim that was never prepared has one": [
        "UPDATE claims SET prepared_at = now() WHERE id = :claimed",
    ],
    "a device and its pool have different types": [
        "UPDATE pci_devices SET dev_type = 'type-PCI' WHERE id = :free",
    ],
    "a PF's number of VFs is wrong": [
        "UPDATE pci_devices SET vfs = 1 WHERE id = :whole",
        "UPDATE pci_devices SET status = 'removed' WHERE id = :free",
    ],
    "a row of port_pools is wrong": [
        "UPDATE port_pools SET free = 1 WHERE port_id = :whole",
        "UPDATE port_pools SET held = 2 WHERE port_id = :whole",
        "UPDATE port_pools SET numa_node = 1",
        "DELETE FROM port_pools WHERE port_id = :whole",
        "INSERT INTO port_pools VALUES (:free, 1, 1, 0, 0, 0)",
    ],
    "the sums of a counted host are wrong": [
        "UPDATE host_pools SET free = free + 1 WHERE free > 0",
        "UPDATE host_pools SET host_ports = 7",
        "UPDATE host_pools SET disabled = true",
        "DELETE FROM host_pools",
    ],
    "a claim waits for a step that is not in the outbox": [
        "DELETE FROM outbox WHERE claim_id = :claimed",
        "UPDATE outbox SET action = 'detach'",
        "UPDATE claims SET attach = 'on-call' WHERE id = :claimed",
    ],
    "the outbox has a step that no claim waits for": [
        "INSERT INTO outbox (claim_id, step, action) VALUES (:allocated, 1, 'attach')",
        "UPDATE claims SET step = 2 WHERE id = :claimed",
    ],
    "the claims of a move are on one host, or of different instances": [
        "UPDATE claims SET compute_node_id = (SELECT id FROM compute_nodes WHERE host = 'h1')"
        " WHERE id = :target",
        "UPDATE claims SET instance_id = gen_random_uuid() WHERE id = :target",
    ],
    "a claim belongs to two live moves": [
        "INSERT INTO claim_moves (target_claim_id, source_claim_id) VALUES (:claimed, :target)",
    ],
    "the status of a move does not fit the statuses of its claims": [
        "UPDATE claims SET status = 'failed' WHERE id = :target",
        "UPDATE claims SET status = 'releasing' WHERE id = :allocated",
        "UPDATE claim_moves SET status = 'completed'",
        "UPDATE claim_moves SET status = 'reverted'",
    ],
    "the source of a move was released before its target was allocated": [
        "UPDATE claim_events SET cause = 'moved to claim ' || :target WHERE claim_id = :allocated",
    ],
    "an instance lost its devices although nobody released them": [
        "UPDATE claims SET status = 'released' WHERE id = :allocated",
    ],
    "the events of a claim do not match its status": [
        "DELETE FROM claim_events WHERE claim_id = :claimed",
        "DELETE FROM claim_events WHERE claim_id = :ended AND to_status = 'releasing'",
        "UPDATE claims SET status = 'failed' WHERE id = :ended",
    ],
}


def test_every_rule_has_statements_that_break_it() -> None:
    assert BREAKS.keys() == RULES.keys()


def test_each_rule_finds_what_breaks_it(fleet: Fleet) -> None:
    host = fleet.host("h1", ports=3, vfs=2)
    whole, ended, claimed = fleet.claim("nic-pf:1"), fleet.claim("nic-vf:2"), fleet.claim("nic-vf:1")
    fleet.host("h2", ports=1, vfs=2)
    host.done(whole)
    host.done(fleet.release(ended))
    fleet.claim("nic-pf:1", hosts=["h2"])
    first, second = (fleet.claim("nic-pf:1", hosts=["h2"], wait=300) for _ in range(2))
    fleet.serve()
    fleet.host("h3", ports=1, vfs=2)
    target = fleet.move(whole, hosts=["h3"]).target
    ids = dict(
        fleet.sql(
            "SELECT d.address, d.id FROM pci_devices d JOIN compute_nodes n ON n.id = d.compute_node_id"
            " WHERE n.host = 'h1'"
        )
    )
    facts = {
        "allocated": whole.claim_id,
        "whole": ids[whole.devices[0].address],
        "ended": ended.claim_id,
        "free": ids[ended.devices[0].address],
        "claimed": claimed.claim_id,
        "first": first.claim_id,
        "second": second.claim_id,
        "target": target.claim_id,
    }
    fleet.count_hosts()
    with fleet.engine.connect() as connection:
        assert violations(connection) == []
    for rule, statements in BREAKS.items():
        for statement in statements:
            with fleet.engine.connect() as connection:  # rolled back at its end
                connection.execute(sa.text("SET session_replication_role = replica"))  # no foreign keys
                for check in ("held_names_its_claim", "only_a_vf_has_a_parent"):
                    connection.execute(sa.text(f"ALTER TABLE pci_devices DROP CONSTRAINT {check}"))
                connection.execute(sa.text("ALTER TABLE claims DROP CONSTRAINT has_a_host_once_it_is_served"))
                connection.execute(sa.text("ALTER TABLE waiting_claims ALTER position DROP IDENTITY"))
                connection.execute(sa.text(statement), facts)
                assert rule in {broken for broken, _ in violations(connection)}, statement
