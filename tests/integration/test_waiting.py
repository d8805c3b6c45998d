"""Waiting claims: the order in which they are served, what serves them, and how they end."""

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from portclaim.common.db.listener import NotificationListener
from portclaim.common.db.pruning import Pruning
from portclaim.common.errors import ClaimConflict, ClaimRefused, InvalidRequest
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.operator_messages import WaitingFilter
from portclaim.services.scheduler.queues import CHANNEL
from tests.support.concurrency import LONG, at_once, meanwhile, wait_until, wait_until_blocked
from tests.support.fleet import ALIASES, CONNECTX5, Fleet, Host, gpu, pf, slice_of, vf


@pytest.fixture(autouse=True)
def host(fleet: Fleet) -> Host:
    """Two ports with two VFs each."""
    return fleet.host("h1", ports=2, vfs=2)


def fill(fleet: Fleet, alias_spec: str = "nic-vf:1") -> list[Claim]:
    """Claim until nothing more can be served."""
    claims = []
    while fleet.explain(alias_spec).served:
        claims.append(fleet.claim(alias_spec))
    return claims


def statuses(fleet: Fleet, *claims: Claim) -> list[str]:
    return [fleet.show(claim).status for claim in claims]


def wait(fleet: Fleet, alias_spec: str = "nic-vf:1", **facts: object) -> Claim:
    claim = fleet.claim(alias_spec, wait=300, **facts)  # type: ignore[arg-type]
    assert (claim.status, claim.host, claim.devices) == ("waiting", None, [])
    return claim


def reserved(fleet: Fleet) -> dict[str, object]:
    return dict(fleet.sql("SELECT address, reserved_for FROM pci_devices WHERE reserved_for IS NOT NULL"))


class TestQueue:
    def test_a_claim_that_can_be_served_at_once_does_not_wait(self, fleet: Fleet) -> None:
        assert fleet.claim("nic-vf:1", wait=300).status == "claimed"
        assert fleet.scheduler.waiting(WaitingFilter()).claims == []

    def test_a_queue_is_served_in_order_of_arrival(self, fleet: Fleet) -> None:
        holders = fill(fleet)
        queue = [wait(fleet) for _ in range(3)]
        for number, holder in enumerate(holders[:3]):
            fleet.leave(holder)
            fleet.serve()
            assert statuses(fleet, *queue) == ["claimed"] * (number + 1) + ["waiting"] * (2 - number)
        assert [step.claim_id for _, step in fleet.sent if step.action == "attach"][-3:] == [
            claim.claim_id for claim in queue
        ]

    def test_a_claim_does_not_overtake_a_queue_with_the_same_requests(self, fleet: Fleet) -> None:
        first, *others = fill(fleet)
        waits = wait(fleet)
        for holder in (first, *others):
            fleet.leave(holder)
        with pytest.raises(
            ClaimRefused, match="claims with the same requests are waiting in a queue: 1"
        ) as refused:
            fleet.claim("nic-vf:1")
        assert refused.value.kwargs["explanation"]["served"] is False
        assert not fleet.explain("nic-vf:1").served
        behind = wait(fleet)
        fleet.serve()
        assert statuses(fleet, waits, behind) == ["claimed"] * 2
        assert fleet.claim("nic-vf:1").status == "claimed"

    def test_a_claim_with_other_requests_does_not_wait_behind_the_queue(self, fleet: Fleet) -> None:
        fleet.host_of("h2", [gpu(0)])
        fill(fleet)
        wait(fleet)
        assert fleet.claim("gpu:1").status == "claimed"

    def test_waiting_lists_the_position_and_the_reserved_ports(self, fleet: Fleet) -> None:
        fill(fleet, "nic-pf:1")
        queue = [wait(fleet, "nic-pf:1"), wait(fleet, "nic-pf:1"), wait(fleet, "nic-vf:2")]
        fleet.serve()
        shown = fleet.scheduler.waiting(WaitingFilter()).claims
        assert [(each.claim_id, each.position, each.alias, each.reserved_host) for each in shown] == [
            (queue[0].claim_id, 1, "nic-pf:1", "h1"),
            (queue[1].claim_id, 2, "nic-pf:1", None),
            (queue[2].claim_id, 1, "nic-vf:2", "h1"),
        ]
        assert {port for each in shown for port in each.reserved_ports} == {pf(0), pf(1)}
        assert 299 < shown[0].expires_in <= 300
        [one] = fleet.scheduler.waiting(WaitingFilter(claim_id=queue[1].claim_id)).claims
        assert one.position == 2
        assert fleet.scheduler.waiting(WaitingFilter(limit=2)).more

    def test_repeating_the_claim_of_a_waiting_claim_is_safe(self, fleet: Fleet) -> None:
        holders = fill(fleet)
        claim_id, instance_id = uuid4(), uuid4()
        waits = wait(fleet, claim_id=claim_id, instance_id=instance_id)
        again = partial(fleet.claim, "nic-vf:1", claim_id, instance_id)
        before = fleet.contents()
        assert again() == again(wait=300) == again(wait=1) == fleet.show(waits) == waits
        assert at_once([again] * 4) == [waits] * 4
        with pytest.raises(ClaimConflict):
            fleet.claim("nic-vf:2", claim_id, instance_id, wait=300)
        with pytest.raises(ClaimConflict):
            fleet.claim("nic-vf:1", claim_id, uuid4())
        assert fleet.contents() == before
        fleet.leave(holders[0])
        assert again() == waits, "a repeated call does not serve a claim; only its turn in the queue does"
        fleet.serve()
        assert again().status == "claimed"
        assert again(wait=300) == again() == fleet.show(waits)

    def test_concurrent_calls_with_one_id_take_one_place_in_the_queue(self, fleet: Fleet) -> None:
        fill(fleet)
        again = partial(fleet.claim, "nic-vf:1", uuid4(), uuid4(), wait=300)
        answers = at_once([again] * 6)
        assert answers == [answers[0]] * 6
        assert len(fleet.scheduler.waiting(WaitingFilter()).claims) == 1

    def test_queues_survive_a_restart_of_all_services(self, fleet: Fleet, database_url: str) -> None:
        holders = fill(fleet)
        queue = [wait(fleet) for _ in range(3)]
        fleet.serve()
        fleet.engine.dispose()
        after = Fleet(database_url)
        for holder in holders[:2]:
            fleet.leave(holder)
        after.serve()
        after.close()
        assert statuses(fleet, *queue) == ["claimed", "claimed", "waiting"]

    def test_several_workers_serve_the_queues_together(self, fleet: Fleet) -> None:
        holders = fill(fleet)
        queue = [wait(fleet) for _ in range(5)]
        for holder in holders[:3]:
            fleet.leave(holder)
        assert at_once([fleet.serve] * 4) == [None] * 4
        assert statuses(fleet, *queue) == ["claimed"] * 3 + ["waiting"] * 2
        fleet.serve()
        assert len(reserved(fleet)) == 3, "a port and its two VFs are reserved for the new head of the queue"


MakeRoom = Callable[[Fleet, Host, Claim], object]


def detached(fleet: Fleet, host: Host, holder: Claim) -> None:
    fleet.leave(holder)


def attach_fails(fleet: Fleet, host: Host, holder: Claim) -> None:
    host.failed(holder, "no such instance")


def instance_is_lost(fleet: Fleet, host: Host, holder: Claim) -> None:
    host.done(holder)
    host.failed(holder, "its instance is gone")


def claim_expires(fleet: Fleet, host: Host, holder: Claim) -> None:
    fleet.sql("UPDATE claims SET created_at = '2000-01-01' WHERE id = :id", id=holder.claim_id)
    fleet.expire()
    host.done(holder)


def released_by_force(fleet: Fleet, host: Host, holder: Claim) -> None:
    fleet.falls_silent("h1")
    fleet.force(holder)
    host.report()


def devices_appear(fleet: Fleet, host: Host, holder: Claim) -> None:
    host.add(slice_of(1, 7))
    host.report()


def host_is_added(fleet: Fleet, host: Host, holder: Claim) -> None:
    fleet.host("h2", ports=1, vfs=1)


def port_is_undrained(fleet: Fleet, host: Host, holder: Claim) -> None:
    fleet.scheduler.undrain("h3", pf(0))


def host_is_undrained(fleet: Fleet, host: Host, holder: Claim) -> None:
    fleet.scheduler.undrain("h4")


@pytest.mark.parametrize(
    "make_room",
    [
        detached,
        attach_fails,
        instance_is_lost,
        claim_expires,
        released_by_force,
        devices_appear,
        host_is_added,
        port_is_undrained,
        host_is_undrained,
    ],
)
def test_new_room_sends_a_notification_and_is_given_to_the_queue(
    fleet: Fleet, host: Host, make_room: MakeRoom
) -> None:
    for name in ("h3", "h4"):
        fleet.host(name, ports=1, vfs=1)
    fleet.scheduler.drain("h3", "flapping", pf(0))
    fleet.scheduler.drain("h4", "new fan")
    holders = fill(fleet)
    waits = wait(fleet)
    fleet.serve()
    assert statuses(fleet, waits) == ["waiting"]
    notified = threading.Semaphore(0)
    listener = NotificationListener(fleet.engine, CHANNEL, notified.release)
    listener.start()
    try:
        assert notified.acquire(timeout=LONG), "the listener is connected"
        make_room(fleet, host, holders[0])
        assert notified.acquire(timeout=LONG), "a notification arrives"
    finally:
        listener.end()
    fleet.serve()
    assert statuses(fleet, waits) == ["claimed"]
    assert reserved(fleet) == {}


def test_a_silent_host_that_reports_again_is_used_in_the_next_round(fleet: Fleet, host: Host) -> None:
    fleet.falls_silent("h1")
    waits = wait(fleet)
    fleet.serve()
    assert statuses(fleet, waits) == ["waiting"]
    assert reserved(fleet) == {}, "no port of a silent host is reserved"
    host.sign_of_life()
    fleet.serve()
    assert statuses(fleet, waits) == ["claimed"]


def test_no_notification_is_sent_while_no_claim_waits(fleet: Fleet, host: Host) -> None:
    with fleet.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as listener:
        listener.execute(sa.text(f"LISTEN {CHANNEL}"))
        fleet.leave(fleet.claim("nic-pf:1"))
        host.add(slice_of(1, 7))
        host.report()
        fleet.sql(f"NOTIFY {CHANNEL}, 'the end'")
        driver: Any = listener.connection.dbapi_connection
        wait_until(lambda: driver.poll() or driver.notifies, "the last notification arrives")
        assert [heard.payload for heard in driver.notifies] == ["the end"]
        listener.execute(sa.text("UNLISTEN *"))


class TestEnd:
    def test_releasing_the_head_of_a_queue_makes_the_next_claim_the_head(self, fleet: Fleet) -> None:
        holders = fill(fleet)
        first, second = wait(fleet), wait(fleet)
        fleet.serve()
        released = fleet.release(first)
        assert (released.status, released.host) == ("released", None)
        assert fleet.release(first) == released == fleet.show(first)
        assert reserved(fleet) == {}
        fleet.leave(holders[0])
        fleet.serve()
        assert statuses(fleet, first, second) == ["released", "claimed"]

    def test_a_waiting_claim_cannot_be_released_by_force(self, fleet: Fleet) -> None:
        fill(fleet)
        waits = wait(fleet)
        with pytest.raises(InvalidRequest, match="release it without force"):
            fleet.force(waits)
        assert statuses(fleet, waits) == ["waiting"]

    def test_a_waiting_claim_expires_at_its_deadline_and_stays_expired(self, fleet: Fleet) -> None:
        holders = fill(fleet)
        claim_id, instance_id = uuid4(), uuid4()
        late = wait(fleet, claim_id=claim_id, instance_id=instance_id)
        next_ = wait(fleet)
        fleet.serve()
        fleet.sql("UPDATE waiting_claims SET deadline = now() WHERE id = :id", id=claim_id)
        fleet.leave(holders[0])
        fleet.serve()
        assert statuses(fleet, late, next_) == ["expired", "claimed"]
        ended = fleet.show(late)
        assert str(ended.reason).startswith("not served within")
        assert fleet.claim("nic-vf:1", claim_id, instance_id, wait=300) == ended == fleet.release(late)

    def test_a_claim_released_while_it_is_served_ends_as_released_or_is_detached(self, fleet: Fleet) -> None:
        for _ in range(8):
            holders = fill(fleet)
            queue = [wait(fleet), wait(fleet)]
            fleet.serve()
            fleet.leave(holders[0])
            at_once([fleet.serve, partial(fleet.release, queue[0]), fleet.serve])
            fleet.serve()
            first, second = statuses(fleet, *queue)
            assert (first, second) in {("released", "claimed"), ("releasing", "waiting")}
            assert fleet.faults() == []
            for claim in [*holders[1:], *queue]:
                if fleet.show(claim).host is not None:
                    fleet.leave(claim)
                else:
                    fleet.release(claim)

    def test_a_release_waits_for_the_connection_that_serves_the_claim_then_detaches(
        self, fleet: Fleet
    ) -> None:
        holders = fill(fleet)
        waits = wait(fleet)
        fleet.leave(holders[0])
        with fleet.engine.connect() as other:  # locks the ports that the scheduler needs
            other.execute(sa.text("SELECT FROM pci_devices WHERE parent_id IS NULL ORDER BY id FOR UPDATE"))
            serving = meanwhile(fleet.serve)
            wait_until_blocked(fleet.engine)
            releasing = meanwhile(partial(fleet.release, waits))
            wait_until_blocked(fleet.engine, 2)
            other.rollback()
        serving.result()
        assert releasing.result().status == "releasing"

    def test_serving_skips_a_claim_that_another_connection_has_locked(self, fleet: Fleet) -> None:
        fleet.host("h2", ports=1, vfs=1, card=CONNECTX5)
        nics, roces = fill(fleet), fill(fleet, "roce-vf:1")
        here, there = wait(fleet), wait(fleet, "roce-vf:1")
        fleet.leave(nics[0])
        fleet.leave(roces[0])
        with fleet.engine.connect() as other:
            other.execute(sa.text("SELECT FROM claims WHERE id = :id FOR UPDATE"), {"id": here.claim_id})
            fleet.serve()
            other.rollback()
        assert statuses(fleet, here, there) == ["waiting", "claimed"]
        fleet.serve()
        assert statuses(fleet, here) == ["claimed"]

    def test_an_old_waiting_claim_is_not_pruned_and_does_not_expire_when_it_is_served(
        self, fleet: Fleet
    ) -> None:
        holders = fill(fleet)
        waits = wait(fleet)
        fleet.sql(
            "UPDATE claims SET created_at = '2000-01-01', updated_at = '2000-01-01' WHERE live IS FALSE"
        )
        assert not Pruning(fleet.engine, timedelta(days=1)).work()
        assert statuses(fleet, waits) == ["waiting"]
        fleet.leave(holders[0])
        fleet.serve()
        assert waits.claim_id not in fleet.expire(after=60.0)

    def test_the_history_shows_that_a_claim_waited_and_was_served(self, fleet: Fleet) -> None:
        holders = fill(fleet)
        waits = wait(fleet)
        fleet.leave(holders[0])
        fleet.serve()
        assert fleet.sql(
            "SELECT from_status, to_status, cause FROM claim_events WHERE claim_id = :id ORDER BY id",
            id=waits.claim_id,
        ) == [(None, "waiting", "claim"), ("waiting", "claimed", "served")]


class TestReservedPort:
    def test_vf_claims_cannot_take_a_port_that_is_reserved_for_a_pf_claim(self, fleet: Fleet) -> None:
        on_first = [fleet.claim("nic-vf:1") for _ in range(2)]
        other = fleet.claim("nic-vf:1")
        waits = wait(fleet, "nic-pf:1")
        fleet.serve()
        assert set(reserved(fleet)) == {pf(1), vf(1, 0), vf(1, 1)}, "the port with the fewest holders"
        with pytest.raises(ClaimRefused) as refused:
            fleet.claim("nic-vf:1")
        assert f"h1: reserved for waiting claim {waits.claim_id}" not in refused.value.message
        reasons = dict(fleet.sql("SELECT address, reason FROM pf_vf_tree"))
        assert reasons[vf(1, 1)] == reasons[pf(1)] == f"reserved for waiting claim {waits.claim_id}"
        fleet.leave(other)
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-vf:1")
        fleet.serve()
        assert [device.address for device in fleet.show(waits).devices] == [pf(1)]
        assert reserved(fleet) == {}
        assert statuses(fleet, *on_first) == ["claimed"] * 2

    def test_explain_names_the_claim_for_which_a_port_is_reserved(self, fleet: Fleet) -> None:
        holder = fleet.claim("nic-pf:1", hosts=["h1"])
        fleet.scheduler.drain("h1", "flapping", pf(1) if holder.devices[0].address == pf(0) else pf(0))
        waits = wait(fleet, "nic-pf:1")
        fleet.serve()
        assert fleet.explain("nic-vf:1").nearest_miss == (
            "every port with such a device is reserved for a waiting claim: "
            f"h1: reserved for waiting claim {waits.claim_id}"
        )

    def test_a_claim_served_on_another_host_loses_its_reserved_port(self, fleet: Fleet) -> None:
        fill(fleet)
        waits = wait(fleet, "nic-pf:1")
        fleet.serve()
        assert reserved(fleet)
        fleet.host("h2", ports=1, vfs=2)
        fleet.serve()
        assert fleet.show(waits).host == "h2"
        assert reserved(fleet) == {}

    def test_all_ports_reserved_for_a_claim_are_on_one_host(self, fleet: Fleet) -> None:
        second = fleet.host("h2", ports=2, vfs=2)
        claims = fill(fleet)
        waits = wait(fleet, "nic-pf:2")
        fleet.serve()
        [hosts] = fleet.sql(
            "SELECT count(DISTINCT compute_node_id), count(*) FROM pci_devices WHERE reserved_for IS NOT NULL"
        )
        assert hosts == (1, 6)
        [(name,)] = fleet.sql("SELECT reserved_host FROM waiting")
        for claim in claims:
            if claim.host == name:
                fleet.leave(claim)
        fleet.serve()
        assert {device.address for device in fleet.show(waits).devices} == {pf(0), pf(1)}
        assert second.name in {"h1", "h2"}

    @pytest.mark.parametrize("trouble", ["port drained", "host drained", "silent", "devices lost", "removed"])
    def test_another_host_is_reserved_when_the_reserved_host_cannot_serve_any_more(
        self, fleet: Fleet, host: Host, trouble: str
    ) -> None:
        fill(fleet)
        other = fleet.host("h2", ports=1, vfs=3)
        on_other = fill(fleet)
        waits = wait(fleet, "nic-pf:1")
        fleet.serve()
        assert fleet.sql("SELECT reserved_host FROM waiting") == [("h1",)]
        match trouble:
            case "port drained":
                fleet.scheduler.drain("h1", "flapping", pf(0))
                fleet.scheduler.drain("h1", "flapping", pf(1))
            case "host drained":
                fleet.scheduler.drain("h1", "new fan")
            case "silent":
                fleet.falls_silent("h1")
            case "devices lost":
                for number in (0, 1):
                    host.change(pf(number), offered=False)
                host.report()
            case "removed":
                fleet.falls_silent("h1")
                fleet.scheduler.remove_host("h1", "ann", "burnt down", force=True)
        fleet.serve()
        assert fleet.sql("SELECT reserved_host FROM waiting") == [("h2",)]
        assert fleet.faults() == []
        for claim in on_other:
            fleet.leave(claim)
        fleet.serve()
        assert fleet.show(waits).host == other.name

    def test_a_drained_reserved_port_stays_drained_after_the_claim_has_ended(self, fleet: Fleet) -> None:
        fill(fleet)
        waits = wait(fleet, "nic-pf:1")
        fleet.serve()
        [([port],)] = fleet.sql("SELECT reserved_ports FROM waiting")
        fleet.scheduler.drain("h1", "flapping", port)
        fleet.serve()
        [([another],)] = fleet.sql("SELECT reserved_ports FROM waiting")
        assert another != port
        fleet.release(waits)
        assert dict(fleet.sql("SELECT address, reason FROM pf_vf_tree"))[port] == "port drained: flapping"

    def test_new_vfs_of_a_reserved_port_are_reserved_too(self, fleet: Fleet, host: Host) -> None:
        holders = fill(fleet)
        waits = wait(fleet, "nic-pf:1")
        fleet.serve()
        [([port],)] = fleet.sql("SELECT reserved_ports FROM waiting")
        number = 0 if port == pf(0) else 1
        host.add(slice_of(number, 5), slice_of(1 - number, 5))
        host.report()
        assert fleet.claim("nic-vf:1").devices[0].address == vf(1 - number, 5)
        for holder in holders:
            if holder.devices[0].parent_address == port:
                fleet.leave(holder)
        fleet.serve()
        assert [device.address for device in fleet.show(waits).devices] == [port]

    def test_a_port_is_reserved_while_its_vfs_are_absent_because_a_guest_has_the_pf(
        self, fleet: Fleet, host: Host
    ) -> None:
        whole = [fleet.claim("nic-pf:1"), fleet.claim("nic-pf:1")]
        for claim in whole:
            host.done(claim)
        host.lose(*(vf(port, number) for port in (0, 1) for number in (0, 1)))
        host.report()
        waits = wait(fleet, "nic-vf:2")
        fleet.serve()
        [([port],)] = fleet.sql("SELECT reserved_ports FROM waiting")
        number = 0 if port == pf(0) else 1
        host.done(fleet.release(next(c for c in whole if c.devices[0].address == port)))
        fleet.serve()
        assert statuses(fleet, waits) == ["waiting"]
        host.add(slice_of(number, 0), slice_of(number, 1))
        host.report()
        fleet.serve()
        assert {device.parent_address for device in fleet.show(waits).devices} == {port}

    def test_with_more_queues_than_ports_the_oldest_claims_reserve_first(self, fleet: Fleet) -> None:
        """Claims for one port do not starve an older claim for two."""
        holders = [fleet.claim("nic-pf:1"), fleet.claim("nic-pf:1")]
        early = wait(fleet, "nic-pf:1")
        fleet.serve()
        both = wait(fleet, "nic-pf:2")
        late = wait(fleet, "any-pf:1")
        fleet.serve()
        assert set(reserved(fleet).values()) == {early.claim_id}, "`late` is behind `both`"
        for holder in holders:
            fleet.leave(holder)
            fleet.serve()
        served = fleet.show(early)
        assert served.status == "claimed"
        assert statuses(fleet, both) == ["waiting"]
        fleet.serve()
        fleet.leave(served)
        fleet.serve()
        assert statuses(fleet, both, late) == ["claimed", "waiting"]


def test_a_queue_whose_alias_was_removed_does_not_block_other_queues(fleet: Fleet, database_url: str) -> None:
    holders = fill(fleet)
    odd, other = wait(fleet, "any-vf:1"), wait(fleet, "nic-vf:1")
    fewer = Fleet(database_url, aliases=[alias for alias in ALIASES if "any-" not in alias])
    fleet.leave(holders[0])
    fewer.serve()
    fewer.close()
    assert statuses(fleet, odd, other) == ["waiting", "claimed"]
