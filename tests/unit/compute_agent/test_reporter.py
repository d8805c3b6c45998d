"""Reports to the conductor: their content, their order, and retries while the conductor does not answer."""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from uuid import UUID, uuid4

import pytest

from portclaim.common.errors import (
    ClaimNotFound,
    HostOwnedByAnotherAgent,
    ServiceFailed,
    ServiceUnavailable,
    StaleStep,
    UnknownHost,
)
from portclaim.common.rpc.agent_messages import DeviceReport, Holdings, Step, StepDevice
from portclaim.services.compute_agent.drivers.base import DriverError
from portclaim.services.compute_agent.inventory import Inventory
from portclaim.services.compute_agent.ledger import Ending
from portclaim.services.compute_agent.reporter import Reporter
from portclaim.services.compute_agent.scanner import ScanError

PATIENCE = 10.0  # seconds after which a test has failed
DONE = Ending("done")


class Conductor:
    """Records all calls. ``trouble``: the errors that the next calls of each kind raise."""

    host = "node-1"

    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []
        self.trouble: dict[str, list[Exception]] = {
            "publish": [],
            "answer": [],
            "cast": [],
            "holdings": [],
        }
        self.wants_all = False
        self._changed = threading.Condition()

    def publish(self, inventory: Inventory, *, in_full: bool) -> bool:
        self._hear("publish", (len(inventory.devices), in_full))
        return self.wants_all and not in_full

    def answer(self, step: Step, ending: Ending) -> None:
        self._hear("answer", (step.claim_id, ending))

    def cast_answers(self, ended: Sequence[tuple[Step, Ending]]) -> None:
        self._hear("cast", [(step.claim_id, ending) for step, ending in ended])

    def holdings(self, _found: Collection[UUID]) -> Holdings:
        self._hear("holdings", None)
        return Holdings(holdings=[])

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), self.heard

    def answers(self) -> list[object]:
        return [what for kind, what in self.heard if kind == "answer"]

    def published(self) -> list[object]:
        return [what for kind, what in self.heard if kind == "publish"]

    def _hear(self, kind: str, what: object) -> None:
        with self._changed:
            self._changed.notify_all()
            if self.trouble[kind]:
                raise self.trouble[kind].pop(0)
            self.heard.append((kind, what))


class SlowConductor(Conductor):
    """Does not answer until the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers_now = threading.Event(), threading.Event()

    def publish(self, inventory: Inventory, *, in_full: bool) -> bool:
        self.asked.set()
        self.answers_now.wait(PATIENCE)
        return super().publish(inventory, in_full=in_full)


class Host:
    """A host with a few devices. ``owned``: whether its agent listens for steps."""

    def __init__(self) -> None:
        self.devices = 1
        self.owned: list[bool] = []
        self.faults: list[Exception] = []

    def take_inventory(self) -> Inventory:
        if self.faults:
            raise self.faults.pop(0)
        return Inventory([device(number) for number in range(self.devices)], [])

    def own(self, is_ours: bool) -> None:
        self.owned.append(is_ours)


class Repair:
    """Asks for the holdings and finds nothing to repair."""

    def run(self, ask: Callable[[Collection[UUID]], Holdings]) -> None:
        ask([])


def device(number: int) -> DeviceReport:
    return DeviceReport(
        address=f"0000:{number:02x}:00.0", dev_type="type-PCI", vendor_id="8086", product_id="1572"
    )


def step() -> Step:
    what = StepDevice(address="0000:01:00.0", dev_type="type-PCI", vendor_id="8086", product_id="1572")
    return Step(claim_id=uuid4(), step=1, action="attach", instance_id=uuid4(), devices=[what])


@pytest.fixture
def conductor() -> Conductor:
    return Conductor()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def reporter(conductor: Conductor, host: Host) -> Iterator[Reporter]:
    """A reporter with a short interval, which is not started yet."""
    reporter = Reporter(conductor, Repair(), host.take_inventory, host.own, interval=0.01)
    yield reporter
    reporter.end()


def test_the_first_round_asks_for_holdings_and_reports_all_devices(
    reporter: Reporter, conductor: Conductor
) -> None:
    reporter.start()
    conductor.wait_for(lambda: len(conductor.heard) >= 3)
    assert conductor.heard[:3] == [("holdings", None), ("publish", (1, True)), ("publish", (1, False))]


def test_repair_is_repeated_after_its_interval(
    reporter: Reporter, conductor: Conductor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter.start()
    conductor.wait_for(lambda: len(conductor.published()) >= 3)
    assert conductor.heard.count(("holdings", None)) == 1
    monkeypatch.setattr("portclaim.services.compute_agent.reporter.REPAIR_INTERVAL", 0.0)
    conductor.wait_for(lambda: conductor.heard.count(("holdings", None)) >= 3)


def test_a_changed_inventory_is_reported_in_full_once(
    reporter: Reporter, conductor: Conductor, host: Host
) -> None:
    reporter.start()
    conductor.wait_for(lambda: len(conductor.published()) >= 2)
    host.devices = 5
    conductor.wait_for(lambda: conductor.published()[-1] == (5, False))
    assert conductor.published().count((5, True)) == 1


def test_a_conductor_that_asks_for_it_gets_a_full_report(reporter: Reporter, conductor: Conductor) -> None:
    reporter.start()
    conductor.wait_for(lambda: len(conductor.published()) >= 2)
    conductor.wants_all = True
    conductor.wait_for(lambda: conductor.published().count((1, True)) >= 2)
    at = len(conductor.heard) - 1 - conductor.heard[::-1].index(("publish", (1, True)))
    assert conductor.heard[at - 1] == ("holdings", None), "the repair comes before the full report"


def test_a_refused_result_of_a_done_attach_starts_a_repair(reporter: Reporter, conductor: Conductor) -> None:
    reporter.start()
    conductor.wait_for(lambda: len(conductor.published()) >= 2)
    conductor.trouble["answer"] = [StaleStep("overtaken")]
    reporter.answer(step(), DONE)
    conductor.wait_for(lambda: conductor.heard.count(("holdings", None)) == 2)


def test_a_step_result_is_reported_once_and_after_a_newer_inventory(
    reporter: Reporter, conductor: Conductor, host: Host
) -> None:
    reporter.start()
    conductor.wait_for(lambda: len(conductor.published()) >= 1)
    told = step()
    host.devices = 9
    reporter.answer(told, DONE)
    conductor.wait_for(lambda: bool(conductor.answers()))
    reporter.end()
    assert conductor.answers() == [(told.claim_id, DONE)]
    assert ("publish", (9, True)) in conductor.heard[
        : conductor.heard.index(("answer", (told.claim_id, DONE)))
    ]


def test_an_answer_that_is_awaited_needs_no_reply(
    reporter: Reporter, conductor: Conductor, host: Host
) -> None:
    conductor.trouble["cast"] = [ServiceUnavailable("the broker does not take it")]
    told = step()
    host.devices = 9
    reporter.answer(told, DONE, is_awaited=True)
    reporter.start()
    conductor.wait_for(lambda: "cast" in dict(conductor.heard))
    reporter.end()
    assert [what for kind, what in conductor.heard if kind == "cast"] == [[(told.claim_id, DONE)]]
    assert conductor.answers() == []
    assert conductor.heard.index(("publish", (9, True))) < conductor.heard.index(
        ("cast", [(told.claim_id, DONE)])
    )


@pytest.mark.parametrize("kind", ["holdings", "publish", "answer"])
def test_nothing_is_lost_while_the_conductor_does_not_answer(
    reporter: Reporter, conductor: Conductor, kind: str
) -> None:
    conductor.trouble[kind] = [ServiceUnavailable("no answer"), ServiceFailed("broken"), OSError("no route")]
    told = step()
    reporter.answer(told, DONE)
    reporter.start()
    conductor.wait_for(lambda: bool(conductor.answers()))
    assert conductor.answers() == [(told.claim_id, DONE)]


@pytest.mark.parametrize(
    "error", [StaleStep("overtaken"), ClaimNotFound("no such claim"), HostOwnedByAnotherAgent("not you")]
)
def test_a_step_result_that_the_conductor_refuses_is_dropped(
    reporter: Reporter, conductor: Conductor, error: Exception
) -> None:
    conductor.trouble["answer"] = [error]
    other = step()
    reporter.answer(step(), DONE)
    reporter.answer(other, DONE)
    reporter.start()
    conductor.wait_for(lambda: bool(conductor.answers()))
    reporter.end()
    assert conductor.answers() == [(other.claim_id, DONE)]


def test_a_step_result_on_which_the_conductor_fails_does_not_delay_the_others(
    reporter: Reporter, conductor: Conductor
) -> None:
    conductor.trouble["answer"] = [ServiceFailed("a fault")]
    stumbled, other = step(), step()
    reporter.answer(stumbled, DONE)
    reporter.answer(other, DONE)
    reporter.start()
    conductor.wait_for(lambda: len(conductor.answers()) == 2)
    assert conductor.answers() == [(other.claim_id, DONE), (stumbled.claim_id, DONE)]


def test_of_two_step_results_of_a_claim_only_the_later_is_reported(
    reporter: Reporter, conductor: Conductor
) -> None:
    first = step()
    reporter.answer(first, DONE)
    reporter.answer(first.model_copy(update={"step": 2}), Ending("failed", "stuck"))
    reporter.start()
    conductor.wait_for(lambda: bool(conductor.answers()))
    assert conductor.answers() == [(first.claim_id, Ending("failed", "stuck"))]


@pytest.mark.parametrize("fault", [ScanError("moving"), OSError("no descriptors left"), ZeroDivisionError()])
def test_a_failed_scan_is_repeated(
    reporter: Reporter, conductor: Conductor, host: Host, fault: Exception
) -> None:
    host.faults = [fault]
    reporter.start()
    conductor.wait_for(lambda: len(conductor.published()) >= 1)
    assert host.faults == []


def test_a_hypervisor_that_does_not_answer_delays_no_report_and_is_asked_again(
    reporter: Reporter, conductor: Conductor
) -> None:
    conductor.trouble["holdings"] = [DriverError("libvirt did not answer in 20 s")] * 2
    reporter.start()
    conductor.wait_for(lambda: ("holdings", None) in conductor.heard)
    assert conductor.heard.index(("holdings", None)) == 2
    assert conductor.heard[:2] == [("publish", (1, True)), ("publish", (1, False))]


class TestWhoseHost:
    def test_the_agent_listens_for_steps_once_it_owns_the_host(
        self, reporter: Reporter, conductor: Conductor, host: Host
    ) -> None:
        conductor.trouble["publish"] = [HostOwnedByAnotherAgent("not you")]
        reporter.start()
        conductor.wait_for(lambda: len(conductor.published()) >= 2)
        assert host.owned[:2] == [False, True]

    def test_an_agent_that_gets_its_host_back_repairs_and_reports_in_full(
        self, reporter: Reporter, conductor: Conductor, host: Host
    ) -> None:
        reporter.start()
        conductor.wait_for(lambda: len(conductor.published()) >= 2)
        conductor.trouble["publish"] = [HostOwnedByAnotherAgent("not you")]
        conductor.wait_for(lambda: conductor.published().count((1, True)) == 2)
        assert host.owned.count(False) == 1
        assert conductor.heard.count(("holdings", None)) == 2

    def test_a_host_is_repaired_after_it_was_taken_over(
        self, reporter: Reporter, conductor: Conductor
    ) -> None:
        conductor.trouble["holdings"] = [HostOwnedByAnotherAgent("not yet you")]
        reporter.start()
        conductor.wait_for(lambda: ("holdings", None) in conductor.heard)
        assert conductor.heard[0] == ("publish", (1, True))

    def test_a_new_host_needs_no_repair(self, reporter: Reporter, conductor: Conductor) -> None:
        conductor.trouble["holdings"] = [UnknownHost("who?")]
        reporter.start()
        conductor.wait_for(lambda: len(conductor.published()) >= 3)
        assert ("holdings", None) not in conductor.heard


class TestEnd:
    def test_pending_step_results_are_reported_at_the_end(
        self, reporter: Reporter, conductor: Conductor
    ) -> None:
        reporter.start()
        conductor.wait_for(lambda: bool(conductor.published()))
        told = step()
        reporter.answer(told, DONE)
        reporter.end()
        assert conductor.answers() == [(told.claim_id, DONE)]

    def test_an_unreachable_conductor_does_not_delay_the_end(
        self, reporter: Reporter, conductor: Conductor
    ) -> None:
        conductor.trouble["publish"] = [ServiceUnavailable("no answer")] * 10_000
        reporter.start()
        reporter.answer(step(), DONE)
        reporter.end()
        assert not reporter.is_alive()
        assert conductor.answers() == []

    def test_a_slow_conductor_does_not_delay_the_end(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("portclaim.services.compute_agent.reporter.LAST_REPORT", 0.01)
        conductor = SlowConductor()
        reporter = Reporter(conductor, Repair(), host.take_inventory, host.own, interval=0.01)
        reporter.start()
        assert conductor.asked.wait(PATIENCE)
        reporter.end()
        assert reporter.is_alive(), "it still waits for the answer, but end() did not wait for it"
        conductor.answers_now.set()
        reporter.join(PATIENCE)
        assert not reporter.is_alive()


def test_answers_that_need_no_reply_are_sent_together(reporter: Reporter, conductor: Conductor) -> None:
    first, second, called = step(), step(), step()
    reporter.answer(first, DONE, is_awaited=True)
    reporter.answer(called, DONE)
    reporter.answer(second, DONE, is_awaited=True)
    reporter.start()
    conductor.wait_for(lambda: bool(conductor.answers()))
    reporter.end()
    assert [what for kind, what in conductor.heard if kind in {"cast", "answer"}] == [
        [(first.claim_id, DONE), (second.claim_id, DONE)],
        (called.claim_id, DONE),
    ]
