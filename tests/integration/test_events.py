"""Events over a real RabbitMQ, with conductors that die, a broker that restarts, and consumers."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import kombu
import oslo_messaging
import pytest
import sqlalchemy as sa

from portclaim.common import config
from portclaim.common.errors import InvalidRequest, ServiceUnavailable, UnknownSchema
from portclaim.common.events import broker
from portclaim.common.events.schema import Event, EventFilter, read
from portclaim.common.events.stream import EventStream
from portclaim.common.rpc.agent_messages import StepResult
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.services.conductor.publisher import Exchange, Publisher
from tests.support import engines
from tests.support.bus import Bus
from tests.support.concurrency import LONG, at_once, meanwhile, wait_until, wait_until_blocked
from tests.support.fleet import ALIASES, Fleet, Host
from tests.support.rabbitmq import find_server, free_ports, prepare_node, start_node, start_port_mapper
from tests.support.services import Services

PROGRAM = Path(sys.executable).with_name("portclaim")


@pytest.fixture(autouse=True)
def host(fleet: Fleet) -> Host:
    """Four ports with eight VFs each."""
    return fleet.host("h1", ports=4, vfs=8)


class Follower:
    """Follows a stream in its own thread until the test ends."""

    def __init__(
        self, transport_url: str, wanted: EventFilter | None = None, name: str | None = "test"
    ) -> None:
        self.events: list[Event] = []
        self.stream = EventStream(configured(transport_url), wanted, name)
        self._followed = threading.Event()
        self._following = meanwhile(self._follow)
        assert self._followed.wait(LONG)

    def stop(self) -> None:
        self.stream.end()
        self._following.result(LONG)

    def statuses(self, claim_id: UUID) -> list[str]:
        """The statuses of a claim in the received events, each once."""
        mine = {event.id: event.to_status for event in self.events if event.claim_id == claim_id}
        return list(mine.values())

    def hears(self, status: str, claim_id: UUID) -> None:
        wait_until(lambda: status in self.statuses(claim_id), f"the claim is {status}")

    def _follow(self) -> None:
        with self.stream:
            self.stream.start()
            self._followed.set()
            for event in self.stream:
                self.events.append(event)


Follow = Callable[..., Follower]


@pytest.fixture
def follow(rabbit_url: str) -> Iterator[Follow]:
    """Starts a follower of the events of this test's virtual host, or of another."""
    followers: list[Follower] = []

    def follow(
        wanted: EventFilter | None = None, name: str | None = "test", url: str = rabbit_url
    ) -> Follower:
        followers.append(Follower(url, wanted, name))
        return followers[-1]

    yield follow
    for follower in followers:
        follower.stop()


@pytest.fixture
def publish(fleet: Fleet, rabbit_url: str) -> Iterator[Callable[[], int]]:
    """Publishes all recorded events, as a conductor does."""
    exchange = Exchange(configured(rabbit_url))
    yield Publisher(fleet.engine, exchange.publish).publish_batches
    exchange.close()


def configured(transport_url: str) -> Any:
    conf = config.load([], "test")
    oslo_messaging.TransportURL.parse(conf)  # which registers the option
    conf.set_override("transport_url", transport_url)
    return conf


def unpublished(fleet: Fleet) -> int:
    """How many events are recorded and not published yet."""
    [(count,)] = fleet.sql("SELECT sum(unpublished) FROM event_backlog")
    return int(count)


def recorded(fleet: Fleet) -> dict[UUID, list[str]]:
    """The statuses of every claim, from its history."""
    rows = fleet.sql("SELECT claim_id, array_agg(to_status ORDER BY id) FROM claim_events GROUP BY claim_id")
    return dict(rows)


class TestAmongServices:
    def test_with_many_workers_and_conductors_the_events_of_each_claim_are_in_order(
        self, fleet: Fleet, host: Host, service_process: Services, bus: Bus, follow: Follow
    ) -> None:
        heard = follow()
        for _ in range(2):
            service_process("conductor")
        service_process("scheduler", {"pci": {"alias": ALIASES}}, "--workers", "2")

        def live(_: int) -> None:
            for _ in range(5):
                request = ClaimRequest(
                    claim_id=uuid4(),
                    instance_id=uuid4(),
                    extra_specs={"pci_passthrough:alias": "nic-vf:1"},
                )
                attached(bus, host, bus.scheduler.claim(request))
                attached(bus, host, bus.scheduler.release(request.claim_id))

        assert at_once([lambda number=number: live(number) for number in range(4)]) == [None] * 4
        lives = recorded(fleet)
        assert len(lives) == 20
        for claim_id in lives:
            heard.hears("released", claim_id)
        assert {claim_id: heard.statuses(claim_id) for claim_id in lives} == lives
        assert len({event.id for event in heard.events}) == len(heard.events), (
            "no conductor died, so no event came twice"
        )

    def test_events_are_published_again_if_a_conductor_dies_before_it_marks_them(
        self, fleet: Fleet, host: Host, service_process: Services, follow: Follow
    ) -> None:
        heard = follow()
        first = service_process("conductor")
        with fleet.engine.connect() as connection:
            connection.execute(sa.text("SELECT FROM event_cursors FOR UPDATE"))
            claim = fleet.claim("nic-vf:1")
            heard.hears("claimed", claim.claim_id)
            wait_until_blocked(fleet.engine)
            first.kill()
        host.done(claim)
        service_process("conductor")
        heard.hears("allocated", claim.claim_id)
        told = [event for event in heard.events if event.claim_id == claim.claim_id]
        assert [event.to_status for event in told] == ["claimed", "claimed", "allocated"]
        assert told[0] == told[1]
        backlog = "SELECT sum(unpublished) FROM event_backlog"
        wait_until(lambda: fleet.sql(backlog) == [(0,)], "all events are marked as published")

    def test_no_events_are_published_if_they_are_disabled(
        self, fleet: Fleet, service_process: Services
    ) -> None:
        conductor = service_process("conductor", {"conductor": {"publish_events": False}})
        conductor.stop()
        assert fleet.sql("SELECT unpublished FROM event_backlog WHERE kind = 'device'") == [(36,)]


def attached(bus: Bus, host: Host, claim: Claim) -> None:
    """The step result of an agent that has attached a claim."""
    bus.conductor.step_done(
        StepResult(
            host=host.name, agent_id=host.agent_id, claim_id=claim.claim_id, step=claim.step, outcome="done"
        )
    )


class TestBroker:
    @pytest.fixture
    def node(self, tmp_path: Path) -> Iterator["Node"]:
        if find_server() is None:
            engines.skip_without("RabbitMQ", "as root: apt-get install rabbitmq-server")
        with Node(tmp_path).running() as node:
            yield node

    def test_no_event_is_lost_when_the_broker_restarts(
        self, fleet: Fleet, host: Host, node: "Node", follow: Follow
    ) -> None:
        exchange = Exchange(configured(node.url))
        publisher = Publisher(fleet.engine, exchange.publish)
        heard = follow(url=node.url)
        claim = fleet.claim("nic-vf:1")
        publisher.work()
        heard.hears("claimed", claim.claim_id)

        asleep = EventStream(configured(node.url), name="asleep")
        asleep.start()
        asleep.close()
        host.done(claim)
        publisher.work()
        heard.hears("allocated", claim.claim_id)
        node.stop()
        fleet.release(claim)
        assert publisher.work() is False
        host.done(claim)
        node.start()
        wait_until(lambda: not (publisher.work() or unpublished(fleet)), "the broker has taken all events")
        heard.hears("released", claim.claim_id)
        assert heard.statuses(claim.claim_id) == recorded(fleet)[claim.claim_id]

        late = follow(url=node.url, name="asleep")
        late.hears("released", claim.claim_id)
        assert late.statuses(claim.claim_id) == ["allocated", "releasing", "released"]
        exchange.close()

    def test_without_a_broker_streams_fail_and_no_event_is_marked_as_published(self, fleet: Fleet) -> None:
        nowhere = f"rabbit://guest:guest@127.0.0.1:{free_ports(1)[0]}/"
        with pytest.raises(ServiceUnavailable):
            EventStream(configured(nowhere)).start()
        with pytest.raises(ServiceUnavailable):
            EventStream(configured(nowhere), name="x").delete()
        publisher = Publisher(fleet.engine, Exchange(configured(nowhere)).publish)
        assert publisher.work() is False
        assert unpublished(fleet) == 36

    def test_a_stream_connects_to_the_next_broker_of_its_list(self, rabbit_url: str) -> None:
        nowhere = f"guest:guest@127.0.0.1:{free_ports(1)[0]}"
        user, _, rest = rabbit_url.removeprefix("rabbit://").partition("@")
        place, _, virtual_host = rest.partition("/")
        several = f"rabbit://{nowhere},{user}@{place}/{virtual_host}"
        with EventStream(configured(several)) as stream:
            stream.start()


class Node:
    """A RabbitMQ node of this test's own, which can be restarted with all that it has."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._broker, self._environment = prepare_node(directory)
        self.url = f"rabbit://guest:guest@127.0.0.1:{self._broker.amqp}/"

    @contextmanager
    def running(self) -> Iterator["Node"]:
        mapper = start_port_mapper(self._directory, self._environment, engines.run_owner())
        try:
            self.start()
            yield self
        finally:
            self.stop()
            mapper.stop()

    def start(self) -> None:
        log = self._directory / f"log-{uuid4()}"
        self._node = start_node(log, self._environment, engines.run_owner())

    def stop(self) -> None:
        """Stop it as a power cut does."""
        self._node.stop()


class TestStream:
    def test_a_consumer_that_reconnects_resumes(
        self, fleet: Fleet, rabbit_url: str, publish: Callable[[], int]
    ) -> None:
        wanted = EventFilter(kinds=("claim",))
        first = EventStream(configured(rabbit_url), wanted, "billing")
        first.start()
        for _ in range(3):
            fleet.claim("nic-vf:1")
        publish()
        seen = []
        with first:
            for event in first:
                seen.append(event)
                if len(seen) == 2:  # and it dies before it asks for the next
                    break
        fleet.claim("nic-vf:1")
        publish()
        with EventStream(configured(rabbit_url), wanted, "billing") as second:
            for event in second:
                seen.append(event)
                if len(seen) == 5:
                    break
        ids = [event.id for event in seen]
        assert ids[1] == ids[2], "the event that was not acknowledged comes again"
        assert [event.claim_id for event in seen[:2] + seen[3:]] == [
            claim_id for (claim_id,) in fleet.sql("SELECT claim_id FROM claim_events ORDER BY id")
        ]

    def test_each_name_gets_all_events_through_one_consumer_at_a_time(
        self, fleet: Fleet, host: Host, follow: Follow, publish: Callable[[], int]
    ) -> None:
        one, other, spare = follow(name="one"), follow(name="other"), follow(name="one")
        claim = fleet.claim("nic-vf:1")
        publish()
        other.hears("claimed", claim.claim_id)
        one.hears("claimed", claim.claim_id)
        assert spare.events == []
        one.stop()
        host.done(claim)
        publish()
        spare.hears("allocated", claim.claim_id)
        assert spare.statuses(claim.claim_id) == ["allocated"]

    def test_a_deleted_name_starts_with_new_events(
        self, fleet: Fleet, host: Host, rabbit_url: str, follow: Follow, publish: Callable[[], int]
    ) -> None:
        EventStream(configured(rabbit_url), name="billing").start()
        before = fleet.claim("nic-vf:1")
        publish()
        EventStream(configured(rabbit_url), name="billing").delete()
        heard = follow(name="billing")
        host.done(before)
        publish()
        heard.hears("allocated", before.claim_id)
        assert heard.statuses(before.claim_id) == ["allocated"]

    def test_filters_select_events(
        self, fleet: Fleet, host: Host, follow: Follow, publish: Callable[[], int]
    ) -> None:
        fleet.host("h1.rack-2.example", ports=1, vfs=2)
        publish()
        here = fleet.claim("nic-vf:1", hosts=["h1"])
        there = fleet.claim("nic-vf:1", hosts=["h1.rack-2.example"])
        alias_specs = {
            EventFilter(): {here.claim_id, there.claim_id, None},
            EventFilter(kinds=("device",)): {None},
            EventFilter(kinds=("claim",), hosts=("h1.rack-2.example",)): {there.claim_id},
            EventFilter(statuses=("claimed",), hosts=("h1",)): {here.claim_id},
            EventFilter(statuses=("removed", "available")): {None},
            EventFilter(claim_ids=(here.claim_id,)): {here.claim_id},
            EventFilter(instance_ids=(there.instance_id,)): {there.claim_id},
            EventFilter(claim_ids=(here.claim_id,), hosts=("h1.rack-2.example",)): set(),
        }
        followers = {wanted: follow(wanted, name=None) for wanted in alias_specs}
        host.lose("0000:81:02.7")
        host.report()
        publish()
        for wanted, expected in alias_specs.items():
            heard = followers[wanted]
            wait_until(lambda: len(heard.events) == len(expected), f"{wanted} is served")  # noqa: B023
        for wanted, expected in alias_specs.items():
            assert {event.claim_id for event in followers[wanted].events} == expected

    def test_an_event_of_another_version_is_refused_and_stays_in_the_queue(self, rabbit_url: str) -> None:
        conf = configured(rabbit_url)
        EventStream(conf, name="old").start()
        put(rabbit_url, "claim.claimed.h1", {"version": 2, "id": "claim-1", "what": "is this"})
        for _ in range(2):
            with EventStream(conf, name="old") as stream, pytest.raises(UnknownSchema, match="version 2"):
                next(iter(stream))

    def test_a_message_that_is_not_an_event_is_skipped(self, rabbit_url: str, follow: Follow) -> None:
        heard = follow()
        for nonsense in ("hello", {}, [], {"version": "1"}, {"version": 1, "id": 7}):
            put(rabbit_url, "claim.claimed.h1", nonsense)
        put(rabbit_url, "claim.claimed.h1", EVENT | {"added": "later"})
        wait_until(lambda: heard.events, "the event comes")
        assert [event.id for event in heard.events] == ["claim-7"]

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "ü", "x" * 201, "*"])
    def test_an_invalid_name_is_refused(self, rabbit_url: str, name: str) -> None:
        with pytest.raises(InvalidRequest):
            EventStream(configured(rabbit_url), name=name)


EVENT = {
    "version": 1,
    "id": "claim-7",
    "at": "2026-03-02T09:00:00+00:00",
    "kind": "claim",
    "host": "h1",
    "from_status": None,
    "to_status": "claimed",
    "cause": "claim",
    "claim_id": str(uuid4()),
    "instance_id": str(uuid4()),
    "devices": [{"address": "0000:81:00.0", "dev_type": "type-PF"}],
}


def put(rabbit_url: str, key: str, body: object) -> None:
    """Publish any message to the exchange."""
    options = {"confirm_publish": True}
    url = rabbit_url.replace("rabbit", "amqp", 1)
    with kombu.Connection(url, transport_options=options) as connection:
        connection.Producer().publish(json.dumps(body), exchange=broker.EXCHANGE.name, routing_key=key)


class TestInMemory:
    def test_the_in_memory_bus_of_the_demo_carries_events(self, fleet: Fleet, follow: Follow) -> None:
        heard = follow(url="fake://", name=None)
        claim = fleet.claim("nic-vf:1")
        exchange = Exchange(configured("fake://"))
        Publisher(fleet.engine, exchange.publish).publish_batches()
        heard.hears("claimed", claim.claim_id)
        exchange.close()


class TestCommandLine:
    @contextmanager
    def running(self, rabbit_url: str, *flags: str) -> Iterator[subprocess.Popen[str]]:
        """`portclaim events` that already follows the events. Ctrl-C ends it cleanly."""
        environment = os.environ | {"OS_DEFAULT__TRANSPORT_URL": rabbit_url}
        command = [str(PROGRAM), "events", *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, **pipes) as process:  # type: ignore[call-overload]
            try:
                assert process.stderr.readline().startswith("following")
                yield process
                process.send_signal(signal.SIGINT)
                assert process.wait(LONG) == 0
                assert process.stderr.read() == ""
            finally:
                process.kill()

    def test_the_command_follows_events_and_resumes(
        self, fleet: Fleet, host: Host, rabbit_url: str, publish: Callable[[], int]
    ) -> None:
        flags = ("--kind", "claim", "--name", "billing", "--output", "json")
        with self.running(rabbit_url, *flags) as process:
            claim = fleet.claim("nic-vf:1")
            publish()
            first = read(lines(process, 1)[0])
        host.done(claim)
        fleet.release(claim)
        publish()
        with self.running(rabbit_url, *flags) as process:
            told = [first]
            while told[-1].to_status != "releasing":
                told += [read(line) for line in lines(process, 1)]
        # The first line may come again: it was printed, and perhaps not yet acknowledged.
        assert list(dict.fromkeys(event.to_status for event in told)) == ["claimed", "allocated", "releasing"]

    def test_the_default_output_is_one_readable_line_per_event(
        self, fleet: Fleet, host: Host, rabbit_url: str, publish: Callable[[], int]
    ) -> None:
        claim = fleet.claim("nic-vf:1")
        with self.running(rabbit_url, "--claim", str(claim.claim_id), "--status", "allocated") as process:
            host.done(claim)
            publish()
            [line] = lines(process, 1)
        [device] = claim.devices
        for words in ("h1", str(claim.claim_id), device.address, "claimed → allocated", "attach done"):
            assert words in line

    def test_deleting_and_bad_usage(self, rabbit_url: str) -> None:
        def run(*flags: str) -> tuple[int, str]:
            environment = os.environ | {"OS_DEFAULT__TRANSPORT_URL": rabbit_url}
            command = [str(PROGRAM), "events", *flags]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert "Traceback" not in done.stderr
            return done.returncode, done.stderr

        assert run("--name", "billing", "--delete") == (0, "")
        assert run("--delete")[0] == 2
        assert run("--status", "happy")[0] == 2
        assert run("--host", "h*")[0] == 2
        assert run("--name", "a b")[0] == 1


def lines(process: subprocess.Popen[str], count: int) -> Sequence[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]
