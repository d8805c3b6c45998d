"""Wait for a claim: events wake the caller, and without events it looks for itself."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import kombu
import pytest

from portclaim import ClaimRequest, connect
from portclaim.common.errors import ClaimEnded, ClaimNotFound, InvalidRequest, ServiceUnavailable, WaitTimeout
from portclaim.common.events import broker, wait
from portclaim.common.events.schema import EventFilter, claim_key
from portclaim.common.events.stream import EventStream
from portclaim.common.events.wait import Goal
from portclaim.common.rpc.claim_messages import Claim
from portclaim.services.conductor import service
from portclaim.services.conductor.publisher import Exchange, Publisher
from portclaim.services.conductor.service import Conductor
from tests.integration.test_events import Node, configured, put
from tests.support import engines
from tests.support.bus import Bus
from tests.support.concurrency import LONG, meanwhile, wait_until
from tests.support.fleet import ALIASES, Fleet, Host
from tests.support.rabbitmq import find_server, shared_broker
from tests.support.services import Services
from tests.support.waiters import answer, queues_of_waiters

NOWHERE = "rabbit://127.0.0.1:1/"

Publish = Callable[[], int]


@pytest.fixture(autouse=True)
def host(fleet: Fleet) -> Host:
    """Eight ports with eight VFs each."""
    return fleet.host("h1", ports=8, vfs=8)


@pytest.fixture
def publish(fleet: Fleet, rabbit_url: str) -> Iterator[Publish]:
    """Publishes all recorded events, as a conductor does."""
    exchange = Exchange(configured(rabbit_url))
    yield Publisher(fleet.engine, exchange.publish).publish_batches
    exchange.close()


@pytest.fixture
def only_events_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller to whom no event comes does not look for itself while the test runs."""
    monkeypatch.setattr(wait, "_FIRST_PAUSE", 10 * LONG)
    monkeypatch.setattr(wait, "_LONGEST_PAUSE", 10 * LONG)


class Waiter:
    """Waits for a claim in a thread of its own, and counts how often it looks the claim up."""

    def __init__(
        self,
        fleet: Fleet,
        url: str,
        claim: Claim,
        until: Goal = "prepared",
        *,
        timeout: float | None = None,
        after_first_look: Callable[[], object] = lambda: None,
    ) -> None:
        self._show = partial(fleet.show, claim)
        self._after_first_look = after_first_look
        self.looks = 0
        self._answer: Future[Claim] = meanwhile(
            lambda: wait.wait(configured(url), claim.claim_id, self._look, until, timeout)
        )

    @property
    def is_waiting(self) -> bool:
        return not self._answer.done()

    def answer(self) -> Claim:
        """The claim that it waited for. Raises what the waiting raised."""
        return self._answer.result(LONG)

    def listens(self) -> None:
        """Return when it gets the events: it looks once at first, and once when it has connected."""
        self.has_looked(2)

    def has_looked(self, times: int) -> None:
        wait_until(lambda: self.looks >= times, f"it looks {times} times")

    def _look(self) -> Claim:
        claim = self._show()
        self.looks += 1
        if self.looks == 1:
            self._after_first_look()
        return claim


class TestAtOnce:
    """What can be said at once needs no events and no broker."""

    @pytest.mark.parametrize(
        ("until", "status"),
        [
            ("claimed", "claimed"),
            ("claimed", "allocated"),
            ("prepared", "prepared"),
            ("prepared", "allocated"),
            ("allocated", "allocated"),
            ("released", "released"),
            ("ended", "released"),
            ("ended", "failed"),
        ],
    )
    def test_a_claim_that_is_there_already_is_answered(self, fleet: Fleet, until: Goal, status: str) -> None:
        waiter = Waiter(fleet, NOWHERE, claim_that_is(fleet, status), until)
        assert waiter.answer().status == status
        assert waiter.looks == 1

    @pytest.mark.parametrize(
        ("until", "status"),
        [
            ("claimed", "failed"),
            ("prepared", "releasing"),
            ("prepared", "failed"),
            ("allocated", "released"),
            ("allocated", "expired"),
            ("released", "failed"),
            ("released", "expired"),
        ],
    )
    def test_a_claim_that_can_no_longer_get_there_raises(
        self, fleet: Fleet, until: Goal, status: str
    ) -> None:
        claim = claim_that_is(fleet, status)
        with pytest.raises(ClaimEnded, match=f"is {status} and will not be {until}") as ended:
            Waiter(fleet, NOWHERE, claim, until).answer()
        reason = fleet.show(claim).reason
        assert ended.value.kwargs == {
            "claim_id": str(claim.claim_id),
            "status": status,
            "until": until,
            "reason": reason,
        }
        assert reason is None or ended.value.message.endswith(reason)

    def test_with_timeout_0_it_only_looks(self, fleet: Fleet) -> None:
        claim = fleet.claim("nic-vf:1")
        with pytest.raises(WaitTimeout) as late:
            Waiter(fleet, NOWHERE, claim, timeout=0).answer()
        assert late.value.kwargs["status"] == "claimed"

    def test_an_unknown_word_is_refused(self, fleet: Fleet) -> None:
        with pytest.raises(InvalidRequest, match=r"'attached': use one of claimed, prepared, allocated"):
            Waiter(fleet, NOWHERE, fleet.claim("nic-vf:1"), "attached").answer()  # type: ignore[arg-type]

    def test_a_claim_that_does_not_exist_raises(self, fleet: Fleet) -> None:
        claim = fleet.claim("nic-vf:1").model_copy(update={"claim_id": uuid4()})
        with pytest.raises(ClaimNotFound):
            Waiter(fleet, NOWHERE, claim).answer()


def claim_that_is(fleet: Fleet, status: str) -> Claim:
    """A new claim with this status."""
    claim = fleet.claim("nic-vf:1")
    host = fleet.hosts[claim.host or ""]
    if status == "expired":
        fleet.expire(after=0)
    elif status in {"releasing", "released"}:
        fleet.release(claim)
    match status:
        case "prepared":
            host.prepared(claim)
        case "failed":
            host.failed(claim, "the driver is in use")
        case "allocated" | "released" | "expired":
            host.done(claim)
    assert fleet.show(claim).status == status
    return claim


@pytest.mark.usefixtures("only_events_wake")
class TestEventsWake:
    def test_a_caller_that_waits_before_the_answer(
        self, fleet: Fleet, host: Host, rabbit_url: str, publish: Publish
    ) -> None:
        claim = fleet.claim("nic-vf:1")
        waiter = Waiter(fleet, rabbit_url, claim)
        waiter.listens()
        host.prepared(claim)
        publish()
        assert waiter.answer() == fleet.show(claim)
        assert waiter.answer().status == "prepared"

    def test_a_caller_that_misses_the_event_while_it_connects(
        self, fleet: Fleet, host: Host, rabbit_url: str, publish: Publish
    ) -> None:
        claim = fleet.claim("nic-vf:1")

        def prepare() -> None:
            host.prepared(claim)
            publish()

        waiter = Waiter(fleet, rabbit_url, claim, after_first_look=prepare)
        assert waiter.answer().status == "prepared"
        assert waiter.looks == 2

    def test_the_caller_waits_through_the_statuses_before(
        self, fleet: Fleet, host: Host, rabbit_url: str, publish: Publish
    ) -> None:
        holder = fleet.claim("nic-pf:8")
        claim = fleet.claim("nic-vf:1", wait=300)
        served, prepared, allocated = (
            Waiter(fleet, rabbit_url, claim, until) for until in ("claimed", "prepared", "allocated")
        )
        for waiter in (served, prepared, allocated):
            waiter.listens()
        fleet.leave(holder)
        fleet.serve()
        publish()
        assert served.answer().host == "h1"
        host.prepared(claim)
        publish()
        assert prepared.answer().status == "prepared"
        assert allocated.is_waiting
        host.done(claim)
        publish()
        assert allocated.answer().status == "allocated"

    def test_a_claim_that_fails_meanwhile(
        self, fleet: Fleet, host: Host, rabbit_url: str, publish: Publish
    ) -> None:
        claim = fleet.claim("nic-vf:1")
        waiter, other = (Waiter(fleet, rabbit_url, claim, until) for until in ("prepared", "ended"))
        waiter.listens()
        other.listens()
        host.failed(claim, "the driver is in use")
        publish()
        with pytest.raises(ClaimEnded, match="the driver is in use") as ended:
            waiter.answer()
        assert ended.value.kwargs["status"] == "failed"
        assert other.answer().status == "failed"

    def test_a_claim_that_is_released_meanwhile(
        self, fleet: Fleet, host: Host, rabbit_url: str, publish: Publish
    ) -> None:
        claim = fleet.attached(fleet.claim("nic-vf:1"))
        free = Waiter(fleet, rabbit_url, claim, "released")
        free.listens()
        fleet.release(claim)
        publish()
        free.has_looked(3)
        assert free.is_waiting
        host.done(claim)
        publish()
        assert free.answer().status == "released"

    def test_a_caller_whose_connection_is_closed_and_who_misses_the_event(
        self, fleet: Fleet, host: Host, rabbit_url: str, publish: Publish
    ) -> None:
        claim = fleet.claim("nic-vf:1")
        publish()  # this connection is closed as well
        waiter = Waiter(fleet, rabbit_url, claim)
        waiter.listens()
        virtual_host = rabbit_url.rpartition("/")[2]
        wait_until(lambda: len(shared_broker().connections(virtual_host)) == 2, "the broker lists them")
        host.prepared(claim)
        for name in shared_broker().connections(virtual_host):
            shared_broker().close_connection(name)
        assert waiter.answer().status == "prepared"

    def test_the_broker_sends_a_caller_the_events_of_its_claim_only(
        self, fleet: Fleet, host: Host, rabbit_url: str, publish: Publish
    ) -> None:
        claim, _ = fleet.claim("nic-vf:1"), fleet.claim("nic-vf:1")
        bodies: list[Any] = []
        with kombu.Connection(rabbit_url.replace("rabbit", "amqp", 1)) as connection:
            binding = kombu.binding(broker.EXCHANGE, routing_key=claim_key(claim.claim_id))
            queue = kombu.Queue(bindings=[binding], exclusive=True, durable=False)
            with connection.Consumer(queue, on_message=lambda message: bodies.append(message.payload)):
                host.prepared(claim)
                publish()
                while len(bodies) < 2:
                    connection.drain_events(timeout=LONG)
        assert [(body["claim_id"], body["to_status"]) for body in bodies] == [
            (str(claim.claim_id), "claimed"),
            (str(claim.claim_id), "prepared"),
        ]

    def test_a_stream_of_all_events_gets_each_event_once(
        self, fleet: Fleet, rabbit_url: str, publish: Publish
    ) -> None:
        with EventStream(configured(rabbit_url), EventFilter()) as stream:
            stream.start()
            publish()
            claims = [fleet.claim("nic-vf:1") for _ in range(3)]
            publish()
            told = [stream.next_event(LONG) for _ in range(72 + 3)]
            assert stream.next_event(0.2) is None
        assert len({event.id for event in told if event}) == 72 + 3
        assert [event.claim_id for event in told[72:] if event] == [claim.claim_id for claim in claims]

    def test_the_in_memory_bus_of_the_demo(self, fleet: Fleet, host: Host) -> None:
        claim = fleet.claim("nic-vf:1")
        exchange = Exchange(configured("fake://"))
        waiter = Waiter(fleet, "fake://", claim)
        waiter.listens()
        host.prepared(claim)
        Publisher(fleet.engine, exchange.publish).publish_batches()
        assert waiter.answer().status == "prepared"
        exchange.close()


class TestWithoutEvents:
    def test_a_caller_looks_for_itself_when_events_are_off(
        self, fleet: Fleet, host: Host, rabbit_url: str
    ) -> None:
        claim = fleet.claim("nic-vf:1")
        waiter = Waiter(fleet, rabbit_url, claim)
        waiter.listens()
        host.prepared(claim)
        assert waiter.answer().status == "prepared"

    def test_a_caller_looks_less_and_less_often(
        self, fleet: Fleet, rabbit_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wait, "_FIRST_PAUSE", 0.1)
        monkeypatch.setattr(wait, "_LONGEST_PAUSE", 0.4)
        waiter = Waiter(fleet, rabbit_url, fleet.claim("nic-vf:1"), timeout=2.0)
        with pytest.raises(WaitTimeout):
            waiter.answer()
        assert 3 <= waiter.looks <= 2 + 1 + 2.0 / 0.4 + 1

    def test_a_caller_that_cannot_get_events_looks_for_itself(
        self, fleet: Fleet, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wait, "_FIRST_PAUSE", 0.1)
        claim = fleet.claim("nic-vf:1")
        waiter = Waiter(fleet, NOWHERE, claim)
        waiter.has_looked(3)
        host.prepared(claim)
        assert waiter.answer().status == "prepared"

    def test_a_broker_that_stops_while_a_caller_waits(
        self, fleet: Fleet, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if find_server() is None:
            engines.skip_without("RabbitMQ", "as root: apt-get install rabbitmq-server")
        monkeypatch.setattr(wait, "_LONGEST_PAUSE", 1.0)
        with Node(tmp_path).running() as node:
            first, second = fleet.claim("nic-vf:1"), fleet.claim("nic-vf:1")
            meanwhile_down, afterwards = Waiter(fleet, node.url, first), Waiter(fleet, node.url, second)
            meanwhile_down.listens()
            afterwards.listens()
            node.stop()
            host.prepared(first)
            assert meanwhile_down.answer().status == "prepared"
            node.start()
            host.prepared(second)
            assert afterwards.answer().status == "prepared"

    def test_events_of_another_version_do_not_disturb_it(
        self, fleet: Fleet, host: Host, rabbit_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wait, "_FIRST_PAUSE", 0.1)
        monkeypatch.setattr(wait, "_LONGEST_PAUSE", 0.1)
        claim = fleet.claim("nic-vf:1")
        waiter = Waiter(fleet, rabbit_url, claim)
        waiter.listens()
        put(rabbit_url, claim_key(claim.claim_id), {"version": 2})
        looks = waiter.looks
        time.sleep(1)
        assert waiter.looks - looks <= 11, "it still looks no more often than every 0.1 s"
        host.prepared(claim)
        assert waiter.answer().status == "prepared"

    def test_it_says_what_the_claim_was_when_the_time_is_over(self, fleet: Fleet, rabbit_url: str) -> None:
        claim = fleet.claim("nic-vf:1")
        before = time.monotonic()
        with pytest.raises(WaitTimeout, match=r"after 0\.3 s .* is claimed, not prepared: .*outbox") as late:
            Waiter(fleet, rabbit_url, claim, timeout=0.3).answer()
        assert 0.3 <= time.monotonic() - before < LONG
        assert late.value.kwargs == {
            "claim_id": str(claim.claim_id),
            "status": "claimed",
            "until": "prepared",
            "timeout": 0.3,
        }


class TestWithoutScheduler:
    def test_it_raises_if_the_scheduler_never_answers(self, fleet: Fleet) -> None:
        with pytest.raises(ServiceUnavailable):
            Waiter(fleet, NOWHERE, fleet.claim("nic-vf:1"), after_first_look=fail).answer()

    def test_it_waits_on_while_the_scheduler_is_away(
        self, fleet: Fleet, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wait, "_FIRST_PAUSE", 0.1)
        claim = fleet.claim("nic-vf:1")
        is_away = threading.Event()
        tries = []

        def look() -> Claim:
            tries.append(is_away.is_set())
            if is_away.is_set():
                fail()
            return fleet.show(claim)

        found = meanwhile(lambda: wait.wait(configured(NOWHERE), claim.claim_id, look, "prepared", None))
        wait_until(lambda: tries, "it looks")
        is_away.set()
        wait_until(lambda: tries.count(True) >= 2, "it tries in vain")
        host.prepared(claim)
        is_away.clear()
        assert found.result(LONG).status == "prepared"


def fail() -> None:
    raise ServiceUnavailable("the scheduler does not answer")


class TestWithServices:
    @pytest.fixture
    def services(self, service_process: Services) -> Services:
        """A conductor, and a scheduler that handles two calls at the same time."""
        service_process("conductor")
        service_process("scheduler", {"pci": {"alias": ALIASES}, "rpc": {"threads": 2}})
        return service_process

    @pytest.mark.usefixtures("services", "only_events_wake")
    def test_many_callers_wait_and_hold_no_thread_of_a_scheduler(
        self, host: Host, bus: Bus, rabbit_url: str
    ) -> None:
        with connect(rabbit_url) as scheduler:
            claims = [scheduler.claim(request()) for _ in range(50)]
            waiters = [
                meanwhile(partial(scheduler.wait, claim.claim_id, "prepared", LONG)) for claim in claims
            ]
            virtual_host = rabbit_url.rpartition("/")[2]
            wait_until(lambda: queues_of_waiters(virtual_host) == 50, "all of them wait")
            for _ in range(20):
                before = time.monotonic()
                assert scheduler.show(claims[0].claim_id).status == "claimed"
                assert time.monotonic() - before < 5
            assert not any(waiter.done() for waiter in waiters)
            for claim in claims:
                answer(bus, host, claim, "prepared")
            assert {waiter.result(LONG).status for waiter in waiters} == {"prepared"}
            wait_until(lambda: queues_of_waiters(virtual_host) == 0, "their queues are gone")

    @pytest.mark.usefixtures("only_events_wake")
    def test_a_conductor_publishes_at_once_what_an_agent_answers(
        self, fleet: Fleet, host: Host, bus: Bus, rabbit_url: str, conductor_without_rounds: Conductor
    ) -> None:
        conductor_without_rounds.start()
        claim = fleet.claim("nic-vf:1")
        waiter = Waiter(fleet, rabbit_url, claim)
        waiter.listens()
        answer(bus, host, claim, "prepared")
        assert waiter.answer().status == "prepared"

    @pytest.mark.usefixtures("only_events_wake")
    def test_a_conductor_publishes_soon_what_agents_answer_one_after_another(
        self, fleet: Fleet, host: Host, bus: Bus, rabbit_url: str, conductor_without_rounds: Conductor
    ) -> None:
        conductor_without_rounds.start()
        claims = [fleet.claim("nic-vf:1") for _ in range(5)]
        waiters = [Waiter(fleet, rabbit_url, claim) for claim in claims]
        for waiter in waiters:
            waiter.listens()
        for claim in claims:
            answer(bus, host, claim, "prepared")
        assert {waiter.answer().status for waiter in waiters} == {"prepared"}

    @pytest.fixture
    def conductor_without_rounds(
        self, rabbit_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Conductor]:
        """A conductor in this process that never looks for new events by itself."""
        monkeypatch.setattr(service, "_EVENTS_PAUSE", 10 * LONG)
        conf = configured(rabbit_url)
        conf.set_override("connection", database_url, "database")
        conductor = Conductor(conf)
        yield conductor
        conductor.stop()
        conf.clear_override("connection", "database")  # oslo.config keeps it with the group of all tests

    def test_a_conductor_without_events(
        self, host: Host, bus: Bus, service_process: Services, rabbit_url: str
    ) -> None:
        service_process("conductor", {"conductor": {"publish_events": False}})
        service_process("scheduler", {"pci": {"alias": ALIASES}})
        with connect(rabbit_url) as scheduler:
            claim = scheduler.claim(request())
            waiter = meanwhile(partial(scheduler.wait, claim.claim_id, "prepared"))
            wait_until(lambda: queues_of_waiters(rabbit_url.rpartition("/")[2]) == 1, "it waits")
            answer(bus, host, claim, "prepared")
            assert waiter.result(LONG).status == "prepared"


def request() -> ClaimRequest:
    return ClaimRequest(
        claim_id=uuid4(), instance_id=uuid4(), extra_specs={"pci_passthrough:alias": "nic-vf:1"}
    )
