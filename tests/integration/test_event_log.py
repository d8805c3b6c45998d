"""Every recorded event is published, in order, and only once unless a publisher dies."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portclaim.common.db.pruning import Pruning
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.events.schema import Event, read
from portclaim.common.rpc.claim_messages import Claim
from portclaim.services.conductor.event_log import Recorded
from portclaim.services.conductor.publisher import Publisher
from tests.support.concurrency import meanwhile, wait_until
from tests.support.effort import short_or_long
from tests.support.fleet import Fleet, Host, gpu, pf, port_devices, slice_of, vf


class Reader:
    """A publisher and a broker. ``events``: what the broker has received."""

    def __init__(self, fleet: Fleet) -> None:
        self.events: list[Event] = []
        self.is_away = False
        self.dies_after = False
        self.publisher = Publisher(fleet.engine, self._publish)

    def _publish(self, batch: Sequence[Recorded]) -> None:
        if self.is_away:
            raise ServiceUnavailable("no broker")
        self.events += [read(recorded.body) for recorded in batch]
        if self.dies_after:
            raise ConnectionAbortedError

    def catch_up(self) -> list[Event]:
        """Publish everything; return the events that are new."""
        before = len(self.events)
        while self.publisher.work():
            continue
        return self.events[before:]


@pytest.fixture
def reader(fleet: Fleet) -> Reader:
    return Reader(fleet)


@pytest.fixture(autouse=True)
def host(fleet: Fleet, reader: Reader) -> Host:
    """One port with four VFs, whose events are already published."""
    host = fleet.host("h1", ports=1, vfs=4)
    reader.catch_up()
    return host


def changes(events: Iterable[Event]) -> list[tuple[str | None, str, str]]:
    return [(event.from_status, event.to_status, event.cause) for event in events]


class TestClaims:
    def test_every_transition_is_published_with_its_cause(
        self, fleet: Fleet, host: Host, reader: Reader
    ) -> None:
        claim = fleet.claim("nic-vf:2")
        host.done(claim)
        fleet.release(claim)
        host.failed(claim, "busy")
        host.done(claim)
        told = reader.catch_up()
        assert changes(told) == [
            (None, "claimed", "claim"),
            ("claimed", "allocated", "attach done"),
            ("allocated", "releasing", "release"),
            ("releasing", "releasing", "detach failed: busy"),
            ("releasing", "released", "detach done"),
        ]
        for event in told:
            assert (event.kind, event.host) == ("claim", "h1")
            assert (event.claim_id, event.instance_id) == (claim.claim_id, claim.instance_id)
            assert [(device.address, device.dev_type) for device in event.devices] == [
                (device.address, device.dev_type) for device in claim.devices
            ]
        assert len({event.id for event in told}) == len(told)

    def test_earlier_transitions_are_published_once(self, fleet: Fleet, reader: Reader) -> None:
        fleet.claim("nic-vf:1")
        assert len(reader.catch_up()) == 1
        assert reader.catch_up() == []
        assert Reader(fleet).catch_up() == []

    def test_a_backlog_is_published_in_batches(self, fleet: Fleet, reader: Reader) -> None:
        claims = [fleet.claim("nic-vf:1") for _ in range(4)]
        assert [reader.publisher.publish_batches(limit=3) for _ in range(3)] == [3, 1, 0]
        assert [event.claim_id for event in reader.events[-4:]] == [claim.claim_id for claim in claims]

    def test_the_devices_of_a_claim_come_in_the_order_of_its_requests(
        self, fleet: Fleet, reader: Reader
    ) -> None:
        fleet.host("h2", ports=3, vfs=2)
        reader.catch_up()
        claim = fleet.claim("nic-pf:1,nic-vf:3")
        [event] = reader.catch_up()
        assert [device.address for device in event.devices] == [device.address for device in claim.devices]

    def test_a_waiting_claim_has_no_devices_and_no_host(self, fleet: Fleet, reader: Reader) -> None:
        fleet.claim("nic-pf:1")
        fleet.claim("nic-vf:1", wait=300)
        [event] = [event for event in reader.catch_up() if event.to_status == "waiting"]
        assert (event.host, event.devices) == (None, [])

    def test_a_pruned_claim_does_not_block_later_events(
        self, fleet: Fleet, host: Host, reader: Reader
    ) -> None:
        host.done(fleet.release(fleet.claim("nic-vf:1")))
        Pruning(fleet.engine, timedelta(0)).work()
        fleet.claim("nic-vf:1")
        assert len(reader.catch_up()) == 1


class TestDevices:
    def test_new_devices_are_published(self, fleet: Fleet, reader: Reader) -> None:
        fleet.host_of("h2", [*port_devices(0, 1), gpu(3)])
        told = reader.catch_up()
        assert [event.devices[0].address for event in told] == [pf(0), pf(3), vf(0, 0)]
        assert {event.kind for event in told} == {"device"}
        assert set(changes(told)) == {(None, "available", "its host reports it as usable")}

    def test_devices_that_vanish_and_come_back_are_published(self, host: Host, reader: Reader) -> None:
        host.lose(vf(0, 3))
        host.report()
        host.add(slice_of(0, 3))
        host.report()
        assert changes(reader.catch_up()) == [
            ("available", "removed", "its host no longer reports it"),
            ("removed", "available", "its host reports it as usable"),
        ]

    def test_unusable_devices_are_published_with_the_reason(self, host: Host, reader: Reader) -> None:
        for reason in ("no link", "too hot", None):
            host.change(vf(0, 1), unusable_reason=reason)
            host.report()
        host.change(vf(0, 1), offered=False)
        host.report()
        assert changes(reader.catch_up()) == [
            ("available", "unavailable", "no link"),
            ("unavailable", "unavailable", "too hot"),
            ("unavailable", "available", "its host reports it as usable"),
            ("available", "unavailable", "no device_spec entry of its host matches it"),
        ]

    def test_draining_a_port_is_published_for_the_pf_and_all_its_vfs(
        self, fleet: Fleet, reader: Reader
    ) -> None:
        fleet.scheduler.drain("h1", "flapping link", pf(0))
        told = reader.catch_up()
        assert len(told) == 5
        assert set(changes(told)) == {("available", "unavailable", "port drained: flapping link")}
        fleet.scheduler.undrain("h1", pf(0))
        assert {event.to_status for event in reader.catch_up()} == {"available"}

    def test_claims_cause_no_device_events(self, fleet: Fleet, host: Host, reader: Reader) -> None:
        for alias in ("nic-pf:1", "nic-vf:4"):
            claim = fleet.claim(alias)
            host.done(claim)
            host.report()
            host.done(fleet.release(claim))
        assert {event.kind for event in reader.catch_up()} == {"claim"}

    def test_vfs_of_a_pf_in_a_guest_are_unavailable_until_they_are_reported_again(
        self, fleet: Fleet, host: Host, reader: Reader
    ) -> None:
        claim = fleet.claim("nic-pf:1")
        host.done(claim)
        vfs = {address: device for address, device in host.devices.items() if address != pf(0)}
        host.lose(*vfs)
        host.report()
        host.done(fleet.release(claim))
        told = [event for event in reader.catch_up() if event.kind == "device"]
        assert changes(told) == [("available", "unavailable", "its host does not report it now")] * 4
        host.add(*vfs.values())
        host.report()
        told = reader.catch_up()
        assert {event.devices[0].address for event in told} == set(vfs)
        assert set(changes(told)) == {("unavailable", "available", "its host reports it as usable")}

    def test_the_latest_event_of_each_device_has_its_current_status(
        self, fleet: Fleet, host: Host, reader: Reader
    ) -> None:
        host.change(vf(0, 0), unusable_reason="no link")
        host.lose(vf(0, 1))
        host.add(gpu(4))
        host.report()
        fleet.host("h2", ports=2, vfs=2)
        fleet.scheduler.drain("h2", "hot", pf(1))
        reader.catch_up()
        told = {(event.host, event.devices[0].address): event.to_status for event in reader.events}
        assert told == {
            (name, address): status for name in ("h1", "h2") for address, status in fleet.status(name).items()
        }


class TestFaults:
    def test_events_are_published_after_the_broker_was_down(
        self, fleet: Fleet, host: Host, reader: Reader
    ) -> None:
        reader.is_away = True
        host.done(fleet.claim("nic-vf:1"))
        assert reader.catch_up() == []
        reader.is_away = False
        assert [event.to_status for event in reader.catch_up()] == ["claimed", "allocated"]

    def test_events_not_marked_as_published_are_published_again_with_the_same_id(
        self, fleet: Fleet, host: Host, reader: Reader
    ) -> None:
        host.done(fleet.claim("nic-vf:1"))
        reader.dies_after = True
        with pytest.raises(ConnectionAbortedError):
            reader.publisher.work()
        reader.dies_after = False
        before = reader.events[-2:]
        assert reader.catch_up() == before

    def test_only_one_publisher_publishes_at_a_time(self, fleet: Fleet) -> None:
        fleet.claim("nic-vf:1")
        others = Reader(fleet)
        seen: list[int] = []

        def publish(batch: Sequence[Recorded]) -> None:
            seen.append(others.publisher.publish_batches())

        assert Publisher(fleet.engine, publish).publish_batches() == 1
        assert (seen, others.events) == ([0], [])

    def test_a_publisher_that_finds_another_at_work_looks_again(self, fleet: Fleet) -> None:
        """The other one may have read before the newest event was recorded."""
        fleet.claim("nic-vf:1")
        looks: list[str] = []
        late = Publisher(fleet.engine, lambda _batch: None, lambda: looks.append("again"))
        Publisher(fleet.engine, lambda _batch: late.work()).work()
        assert looks == ["again"]
        late.work()
        assert looks == ["again"], "nobody else is at work now"

    def test_event_backlog_shows_the_unpublished_events(self, fleet: Fleet, reader: Reader) -> None:
        def backlog() -> dict[str, tuple[int, bool]]:
            rows = fleet.sql("SELECT kind, unpublished, oldest_waits_for > interval '0' FROM event_backlog")
            return {kind: (count, waits) for kind, count, waits in rows}

        assert backlog() == {"claim": (0, None), "device": (0, None)}
        fleet.claim("nic-vf:1")
        fleet.claim("nic-vf:1")
        assert backlog() == {"claim": (2, True), "device": (0, None)}
        reader.catch_up()
        assert backlog() == {"claim": (0, None), "device": (0, None)}


class Writer:
    """An open transaction that has recorded a failed detach of a claim."""

    def __init__(self, fleet: Fleet, claim: Claim) -> None:
        self.connection = fleet.engine.connect()
        facts = {"id": claim.claim_id}
        self.connection.execute(sa.text("SELECT FROM claims WHERE id = :id FOR UPDATE"), facts)
        self.id: int = self.connection.scalar(
            sa.text(
                "INSERT INTO claim_events (claim_id, from_status, to_status, cause)"
                " VALUES (:id, 'releasing', 'releasing', 'detach failed') RETURNING id"
            ),
            facts,
        )

    def end(self, *, well: bool) -> None:
        if well:
            self.connection.commit()
        else:
            self.connection.rollback()
        self.connection.close()


def gaps(fleet: Fleet) -> list[tuple[Any, ...]]:
    return fleet.sql("SELECT kind, id FROM event_gaps ORDER BY id")


def test_an_event_committed_late_is_published_after_later_ids(
    fleet: Fleet, host: Host, reader: Reader
) -> None:
    early, late = (Writer(fleet, fleet.release(fleet.claim("nic-vf:1"))) for _ in range(2))
    reader.catch_up()
    late.end(well=True)
    assert [event.id for event in reader.catch_up()] == [f"claim-{late.id}"]
    assert ("claim", early.id) in gaps(fleet)
    assert fleet.sql("SELECT unpublished FROM event_backlog WHERE kind = 'claim'") == [(0,)]
    early.end(well=True)
    assert fleet.sql("SELECT unpublished FROM event_backlog WHERE kind = 'claim'") == [(1,)]
    assert [event.id for event in reader.catch_up()] == [f"claim-{early.id}"]


def test_a_gap_left_by_a_rollback_is_given_up(fleet: Fleet, host: Host, reader: Reader) -> None:
    early, late = (Writer(fleet, fleet.release(fleet.claim("nic-vf:1"))) for _ in range(2))
    late.end(well=True)
    reader.catch_up()
    early.end(well=False)
    # This needs that no transaction of the whole server is as old, not even one of another test.
    wait_until(lambda: not (reader.publisher.work() or gaps(fleet)), "the gap is given up")
    assert f"claim-{early.id}" not in {event.id for event in reader.events}


CLAIMS = 4
# Which writer begins its transaction, or ends an open one; how it ends it; what the publisher does next.
steps = st.lists(
    st.tuples(
        st.integers(0, CLAIMS - 1),
        st.sampled_from(["commit", "commit", "roll back"]),
        st.sampled_from(["publishes", "publishes", "waits", "dies"]),
    ),
    min_size=8,
    max_size=24,
)


@settings(
    max_examples=short_or_long(50, 1000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps, limit=st.integers(1, 3))
def test_with_any_order_of_commits_no_event_is_lost_and_each_claim_is_in_order(
    fleet: Fleet, host: Host, steps: Sequence[tuple[int, str, str]], limit: int
) -> None:
    claims = [fleet.release(fleet.claim("nic-vf:1")) for _ in range(CLAIMS)]
    reader = Reader(fleet)
    reader.catch_up()
    reader.events.clear()
    open_: dict[int, Writer] = {}
    committed: list[tuple[int, int]] = []
    deaths = 0

    def end(number: int, *, well: bool) -> None:
        writer = open_.pop(number)
        writer.end(well=well)
        if well:
            committed.append((number, writer.id))

    for number, ending, publisher in steps:
        if number in open_:
            end(number, well=ending == "commit")
        else:
            open_[number] = Writer(fleet, claims[number])
        if publisher == "waits":
            continue
        reader.dies_after = publisher == "dies"
        try:
            reader.publisher.publish_batches(limit)
        except ConnectionAbortedError:
            deaths += 1
        reader.dies_after = False
    for number in list(open_):
        end(number, well=True)
    while reader.publisher.publish_batches(limit):
        continue

    first_seen = list(dict.fromkeys(event.id for event in reader.events))
    assert sorted(first_seen) == sorted(f"claim-{id}" for _, id in committed)
    assert deaths or len(reader.events) == len(committed), "no event came twice"
    for number, claim in enumerate(claims):
        told = [event.id for event in reader.events if event.claim_id == claim.claim_id]
        assert list(dict.fromkeys(told)) == [f"claim-{id}" for which, id in committed if which == number]
        host.done(claim)


def test_writers_do_not_wait_for_a_publisher(fleet: Fleet, host: Host, reader: Reader) -> None:
    fleet.claim("nic-vf:1")
    with fleet.engine.connect() as connection:
        connection.execute(sa.text("SELECT FROM event_cursors FOR UPDATE"))
        stuck = meanwhile(reader.publisher.publish_batches)
        wait_until(
            lambda: len(reader.events) > 5, "the publisher has published, and waits to mark the events"
        )
        host.done(fleet.claim("nic-vf:1"))
        host.lose(vf(0, 3))
        host.report()
        connection.rollback()
    stuck.result()
    reader.catch_up()
    assert [event.to_status for event in reader.events[5:] if event.kind == "claim"] == [
        "claimed",
        "claimed",
        "allocated",
    ]
    assert changes(event for event in reader.events[5:] if event.kind == "device") == [
        ("available", "removed", "its host no longer reports it")
    ]
