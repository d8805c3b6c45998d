"""Claims that wait: in which order they are served, what serves them, and what becomes of the others."""

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
    """Claims until nothing is left."""
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


def kept(fleet: Fleet) -> dict[str, object]:
    return dict(fleet.sql("SELECT address, reserved_for FROM pci_devices WHERE reserved_for IS NOT NULL"))


class TestInLine:
    def test_what_can_be_served_does_not_wait(self, fleet: Fleet) -> None:
        assert fleet.claim("nic-vf:1", wait=300).status == "claimed"
        assert fleet.scheduler.waiting(WaitingFilter()).claims == []

    def test_first_come_first_served(self, fleet: Fleet) -> None:
        holders = fill(fleet)
        line = [wait(fleet) for _ in range(3)]
        for number, holder in enumerate(holders[:3]):
            fleet.leave(holder)
            fleet.serve()
            assert statuses(fleet, *line) == ["claimed"] * (number + 1) + ["waiting"] * (2 - number)
        assert [step.claim_id for _, step in fleet.sent if step.action == "attach"][-3:] == [
            claim.claim_id for claim in line
        ]

    def test_nobody_overtakes_though_there_is_room(self, fleet: Fleet) -> None:
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

    def test_who_wants_something_else_does_not_wait_behind(self, fleet: Fleet) -> None:
        fleet.host_of("h2", [gpu(0)])
        fill(fleet)
        wait(fleet)
        assert fleet.claim("gpu:1").status == "claimed"

    def test_the_place_is_shown_and_what_is_kept(self, fleet: Fleet) -> None:
        fill(fleet, "nic-pf:1")
        line = [wait(fleet, "nic-pf:1"), wait(fleet, "nic-pf:1"), wait(fleet, "nic-vf:2")]
        fleet.serve()
        shown = fleet.scheduler.waiting(WaitingFilter()).claims
        assert [(each.claim_id, each.position, each.alias, each.reserved_host) for each in shown] == [
            (line[0].claim_id, 1, "nic-pf:1", "h1"),
            (line[1].claim_id, 2, "nic-pf:1", None),
            (line[2].claim_id, 1, "nic-vf:2", "h1"),
        ]
        assert {port for each in shown for port in each.reserved_ports} == {pf(0), pf(1)}
        assert 299 < shown[0].expires_in <= 300
        [one] = fleet.scheduler.waiting(WaitingFilter(claim_id=line[1].claim_id)).claims
        assert one.position == 2
        assert fleet.scheduler.waiting(WaitingFilter(limit=2)).more

    def test_calling_again_is_safe(self, fleet: Fleet) -> None:
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
        assert again() == waits, "it is served in its turn, and not because it asks again"
        fleet.serve()
        assert again().status == "claimed"
        assert again(wait=300) == again() == fleet.show(waits)

    def test_the_same_id_at_once_is_one_place(self, fleet: Fleet) -> None:
        fill(fleet)
        again = partial(fleet.claim, "nic-vf:1", uuid4(), uuid4(), wait=300)
        answers = at_once([again] * 6)
        assert answers == [answers[0]] * 6
        assert len(fleet.scheduler.waiting(WaitingFilter()).claims) == 1

    def test_no_place_is_lost_when_everything_starts_anew(self, fleet: Fleet, database_url: str) -> None:
        holders = fill(fleet)
        line = [wait(fleet) for _ in range(3)]
        fleet.serve()
        fleet.engine.dispose()
        after = Fleet(database_url)
        for holder in holders[:2]:
            fleet.leave(holder)
        after.serve()
        after.close()
        assert statuses(fleet, *line) == ["claimed", "claimed", "waiting"]

    def test_several_workers_share_the_lines(self, fleet: Fleet) -> None:
        holders = fill(fleet)
        line = [wait(fleet) for _ in range(5)]
        for holder in holders[:3]:
            fleet.leave(holder)
        assert at_once([fleet.serve] * 4) == [None] * 4
        assert statuses(fleet, *line) == ["claimed"] * 3 + ["waiting"] * 2
        fleet.serve()
        assert len(kept(fleet)) == 3, "one port, for the first of those that are left"


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


def host_appears(fleet: Fleet, host: Host, holder: Claim) -> None:
    fleet.host("h2", ports=1, vfs=1)


def port_comes_back(fleet: Fleet, host: Host, holder: Claim) -> None:
    fleet.scheduler.undrain("h3", pf(0))


def host_comes_back(fleet: Fleet, host: Host, holder: Claim) -> None:
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
        host_appears,
        port_comes_back,
        host_comes_back,
    ],
)
def test_whatever_makes_room_rings_and_serves(fleet: Fleet, host: Host, make_room: MakeRoom) -> None:
    for name in ("h3", "h4"):
        fleet.host(name, ports=1, vfs=1)
    fleet.scheduler.drain("h3", "flapping", pf(0))
    fleet.scheduler.drain("h4", "new fan")
    holders = fill(fleet)
    waits = wait(fleet)
    fleet.serve()
    assert statuses(fleet, waits) == ["waiting"]
    rung = threading.Semaphore(0)
    listener = NotificationListener(fleet.engine, CHANNEL, rung.release)
    listener.start()
    try:
        assert rung.acquire(timeout=LONG), "it listens"
        make_room(fleet, host, holders[0])
        assert rung.acquire(timeout=LONG), "somebody is told"
    finally:
        listener.end()
    fleet.serve()
    assert statuses(fleet, waits) == ["claimed"]
    assert kept(fleet) == {}


def test_a_host_that_is_heard_of_again_serves_at_the_next_round(fleet: Fleet, host: Host) -> None:
    fleet.falls_silent("h1")
    waits = wait(fleet)
    fleet.serve()
    assert statuses(fleet, waits) == ["waiting"]
    assert kept(fleet) == {}, "nothing is kept on a silent host"
    host.sign_of_life()
    fleet.serve()
    assert statuses(fleet, waits) == ["claimed"]


def test_where_nobody_waits_nobody_is_told(fleet: Fleet, host: Host) -> None:
    with fleet.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as listener:
        listener.execute(sa.text(f"LISTEN {CHANNEL}"))
        fleet.leave(fleet.claim("nic-pf:1"))
        host.add(slice_of(1, 7))
        host.report()
        fleet.sql(f"NOTIFY {CHANNEL}, 'the end'")
        driver: Any = listener.connection.dbapi_connection
        wait_until(lambda: driver.poll() or driver.notifies, "the end is heard of")
        assert [heard.payload for heard in driver.notifies] == ["the end"]
        listener.execute(sa.text("UNLISTEN *"))


class TestEnd:
    def test_release_gives_the_place_to_the_next(self, fleet: Fleet) -> None:
        holders = fill(fleet)
        first, second = wait(fleet), wait(fleet)
        fleet.serve()
        released = fleet.release(first)
        assert (released.status, released.host) == ("released", None)
        assert fleet.release(first) == released == fleet.show(first)
        assert kept(fleet) == {}
        fleet.leave(holders[0])
        fleet.serve()
        assert statuses(fleet, first, second) == ["released", "claimed"]

    def test_there_is_nothing_to_be_released_by_force(self, fleet: Fleet) -> None:
        fill(fleet)
        waits = wait(fleet)
        with pytest.raises(InvalidRequest, match="release it without force"):
            fleet.force(waits)
        assert statuses(fleet, waits) == ["waiting"]

    def test_past_its_deadline_it_has_expired_and_says_so_for_good(self, fleet: Fleet) -> None:
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

    def test_cancelled_while_it_is_served_it_is_one_or_the_other(self, fleet: Fleet) -> None:
        for _ in range(8):
            holders = fill(fleet)
            line = [wait(fleet), wait(fleet)]
            fleet.serve()
            fleet.leave(holders[0])
            at_once([fleet.serve, partial(fleet.release, line[0]), fleet.serve])
            fleet.serve()
            first, second = statuses(fleet, *line)
            assert (first, second) in {("released", "claimed"), ("releasing", "waiting")}
            assert fleet.faults() == []
            for claim in [*holders[1:], *line]:
                if fleet.show(claim).host is not None:
                    fleet.leave(claim)
                else:
                    fleet.release(claim)

    def test_a_release_that_comes_while_another_connection_serves_it_waits_and_detaches(
        self, fleet: Fleet
    ) -> None:
        holders = fill(fleet)
        waits = wait(fleet)
        fleet.leave(holders[0])
        with fleet.engine.connect() as other:  # which holds the tree that serving it needs
            other.execute(sa.text("SELECT FROM pci_devices WHERE parent_id IS NULL ORDER BY id FOR UPDATE"))
            serving = meanwhile(fleet.serve)
            wait_until_blocked(fleet.engine)
            releasing = meanwhile(partial(fleet.release, waits))
            wait_until_blocked(fleet.engine, 2)
            other.rollback()
        serving.result()
        assert releasing.result().status == "releasing"

    def test_one_that_another_connection_has_in_hand_is_passed_over(self, fleet: Fleet) -> None:
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

    def test_what_waits_is_not_pruned_and_does_not_expire_when_served_late(self, fleet: Fleet) -> None:
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

    def test_its_history_is_kept(self, fleet: Fleet) -> None:
        holders = fill(fleet)
        waits = wait(fleet)
        fleet.leave(holders[0])
        fleet.serve()
        assert fleet.sql(
            "SELECT from_status, to_status, cause FROM claim_events WHERE claim_id = :id ORDER BY id",
            id=waits.claim_id,
        ) == [(None, "waiting", "claim"), ("waiting", "claimed", "served")]


class TestKeptPort:
    def test_a_waiting_pf_keeps_later_vfs_from_its_port(self, fleet: Fleet) -> None:
        on_first = [fleet.claim("nic-vf:1") for _ in range(2)]
        other = fleet.claim("nic-vf:1")
        waits = wait(fleet, "nic-pf:1")
        fleet.serve()
        assert set(kept(fleet)) == {pf(1), vf(1, 0), vf(1, 1)}, "the port with the fewest holders"
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
        assert kept(fleet) == {}
        assert statuses(fleet, *on_first) == ["claimed"] * 2

    def test_explain_says_for_whom(self, fleet: Fleet) -> None:
        holder = fleet.claim("nic-pf:1", hosts=["h1"])
        fleet.scheduler.drain("h1", "flapping", pf(1) if holder.devices[0].address == pf(0) else pf(0))
        waits = wait(fleet, "nic-pf:1")
        fleet.serve()
        assert fleet.explain("nic-vf:1").nearest_miss == (
            "every port with such a device is reserved for a waiting claim: "
            f"h1: reserved for waiting claim {waits.claim_id}"
        )

    def test_served_elsewhere_it_gives_its_port_up(self, fleet: Fleet) -> None:
        fill(fleet)
        waits = wait(fleet, "nic-pf:1")
        fleet.serve()
        assert kept(fleet)
        fleet.host("h2", ports=1, vfs=2)
        fleet.serve()
        assert fleet.show(waits).host == "h2"
        assert kept(fleet) == {}

    def test_several_ports_are_of_one_host(self, fleet: Fleet) -> None:
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
    def test_what_cannot_serve_it_any_more_is_given_up_for_another(
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

    def test_a_drain_of_a_kept_port_stays_when_the_claim_has_gone(self, fleet: Fleet) -> None:
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

    def test_vfs_that_come_later_are_kept_too(self, fleet: Fleet, host: Host) -> None:
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

    def test_vfs_that_are_away_with_their_pf_are_waited_for(self, fleet: Fleet, host: Host) -> None:
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

    def test_of_more_lines_than_ports_the_eldest_choose_first(self, fleet: Fleet) -> None:
        """Who wants two ports is not kept from them for ever by those who want one."""
        holders = [fleet.claim("nic-pf:1"), fleet.claim("nic-pf:1")]
        early = wait(fleet, "nic-pf:1")
        fleet.serve()
        both = wait(fleet, "nic-pf:2")
        late = wait(fleet, "any-pf:1")
        fleet.serve()
        assert set(kept(fleet).values()) == {early.claim_id}, "late comes after both"
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


def test_a_line_whose_wish_means_nothing_any_more_holds_up_no_other(fleet: Fleet, database_url: str) -> None:
    holders = fill(fleet)
    odd, other = wait(fleet, "any-vf:1"), wait(fleet, "nic-vf:1")
    fewer = Fleet(database_url, aliases=[alias for alias in ALIASES if "any-" not in alias])
    fleet.leave(holders[0])
    fewer.serve()
    fewer.close()
    assert statuses(fleet, odd, other) == ["waiting", "claimed"]
