"""The thread that sends the steps of claims to their agents."""

import logging
import threading
from collections.abc import Iterator, Sequence
from uuid import uuid4

import pytest

from portclaim.common.errors import ServiceUnavailable
from portclaim.common.rpc.agent_messages import Step
from portclaim.common.rpc.claim_messages import Claim
from portclaim.services.scheduler.dispatch import Dispatcher
from tests.support.concurrency import LONG, wait_until

NOW = "2026-11-29T00:00:00+00:00"

DEVICE = {
    "address": "0000:3b:02.0",
    "dev_type": "type-VF",
    "vendor_id": "8086",
    "product_id": "154c",
    "status": "claimed",
    "numa_node": None,
    "parent_address": "0000:3b:00.0",
    "request_index": 0,
}


class Broker:
    """Notes what is sent to which host. Until it ``goes_on``, it takes nothing."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.casts: list[tuple[str, list[Step]]] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.is_down = False

    def send(self, host: str, steps: Sequence[Step]) -> None:
        self.begun.append(host)
        assert self.goes_on.wait(LONG)
        if self.is_down:
            raise ServiceUnavailable("the broker is down")
        self.casts.append((host, list(steps)))


def claim(host: str | None = "h1", status: str = "claimed") -> Claim:
    return Claim(
        claim_id=uuid4(),
        instance_id=uuid4(),
        status=status,
        host=host,
        step=1,
        devices=[DEVICE],
        reason=None,
        created_at=NOW,
        updated_at=NOW,
    )


def claims_in(broker: Broker) -> list[tuple[str, list[object]]]:
    return [(host, [step.claim_id for step in steps]) for host, steps in broker.casts]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def dispatcher(broker: Broker) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(broker.send)
    dispatcher.start()
    yield dispatcher
    dispatcher.end()


def test_nobody_waits_until_the_broker_takes_a_step(broker: Broker, dispatcher: Dispatcher) -> None:
    broker.goes_on.clear()
    one = claim()
    dispatcher.dispatch([one])  # it returns
    assert broker.casts == []
    broker.goes_on.set()
    wait_until(lambda: broker.casts, "the step is sent")
    assert claims_in(broker) == [("h1", [one.claim_id])]


def test_steps_for_one_host_that_come_meanwhile_are_sent_together(
    broker: Broker, dispatcher: Dispatcher
) -> None:
    broker.goes_on.clear()
    first, second, third, elsewhere = claim(), claim(), claim(), claim("h2")
    dispatcher.dispatch([first])
    wait_until(lambda: broker.begun, "the first step is being sent")
    for each in (second, elsewhere, third):
        dispatcher.dispatch([each])
    broker.goes_on.set()
    dispatcher.end()
    assert claims_in(broker) == [
        ("h1", [first.claim_id]),
        ("h1", [second.claim_id, third.claim_id]),
        ("h2", [elsewhere.claim_id]),
    ]


def test_all_that_was_dispatched_is_sent_before_the_end(broker: Broker) -> None:
    dispatcher = Dispatcher(broker.send)
    claims = [claim(f"h{number}") for number in range(20)]
    for each in claims:
        dispatcher.dispatch([each])
    dispatcher.start()
    dispatcher.end()
    assert claims_in(broker) == [(each.host, [each.claim_id]) for each in claims]


def test_a_step_that_the_broker_does_not_take_is_logged_and_the_next_one_is_sent(
    broker: Broker, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    broker.is_down = True
    lost, sent = claim(), claim()
    dispatcher.dispatch([lost])
    wait_until(lambda: "will be sent again" in caplog.text, "it is logged")
    assert str(lost.claim_id) in caplog.text
    broker.is_down = False
    dispatcher.dispatch([sent])
    wait_until(lambda: broker.casts, "the next step is sent")
    assert claims_in(broker) == [("h1", [sent.claim_id])]


def test_a_claim_that_no_step_can_be_made_of_stops_no_other(
    broker: Broker, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher.dispatch([claim().model_copy(update={"devices": []})])
    wait_until(lambda: "were not sent" in caplog.text, "it is logged")
    dispatcher.dispatch([claim()])
    wait_until(lambda: broker.casts, "the next step is sent")


@pytest.mark.parametrize(("host", "status"), [(None, "waiting"), ("h1", "released"), ("h1", "allocated")])
def test_a_claim_whose_agent_has_nothing_to_do_is_sent_to_nobody(
    broker: Broker, dispatcher: Dispatcher, host: str | None, status: str
) -> None:
    dispatcher.dispatch([claim(host, status)])
    dispatcher.end()
    assert broker.begun == []
