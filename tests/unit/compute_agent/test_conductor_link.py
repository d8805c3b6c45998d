"""What an agent tells the conductor of its inventory: all, what has changed, or that it lives."""

from collections.abc import Mapping
from uuid import UUID, uuid4

import pytest

from portclaim.common.errors import HostOwnedByAnotherAgent, ServiceUnavailable, UnsupportedVersion
from portclaim.common.rpc.agent_messages import (
    MOST_DEVICES,
    MOST_STEPS,
    DeviceReport,
    Holdings,
    InventoryAnswer,
    InventoryReport,
    SignOfLife,
    Step,
    StepDevice,
    StepResult,
    StepResults,
)
from portclaim.services.compute_agent import conductor_link
from portclaim.services.compute_agent import inventory as inventory_module
from portclaim.services.compute_agent.conductor_link import ConductorLink
from portclaim.services.compute_agent.inventory import Inventory, InventoryTooLarge
from portclaim.services.compute_agent.ledger import Ending


class Conductor:
    """Answers reports. ``answers``: what it answers next, or the error that it raises; by default accepts."""

    def __init__(self) -> None:
        self.heard: list[InventoryReport] = []
        self.answers: list[bool | Exception] = []
        self.pinned = False
        self.signs: list[SignOfLife] = []
        self.answered: list[list[UUID]] = []  # claims, by message
        self.trouble: list[Exception] = []  # that the next signs of life raise

    def can_report_changes(self) -> bool:
        return not self.pinned

    def report_inventory(self, report: InventoryReport) -> InventoryAnswer:
        self.heard.append(report)
        answer = self.answers.pop(0) if self.answers else False
        if isinstance(answer, Exception):
            raise answer
        return InventoryAnswer(resend=answer)

    def can_take_several_answers(self) -> bool:
        return not self.pinned

    def cast_step_done(self, result: StepResult) -> None:
        self.answered.append([result.claim_id])

    def cast_steps_done(self, results: StepResults, _traces: Mapping[UUID, str | None]) -> None:
        self.answered.append([answer.claim_id for answer in results.answers])

    def show_life(self, sign: SignOfLife) -> None:
        if self.trouble:
            raise self.trouble.pop(0)
        self.signs.append(sign)

    def holdings(self, *_: object) -> Holdings:
        answer = self.answers.pop(0) if self.answers else False
        if isinstance(answer, Exception):
            raise answer
        return Holdings(holdings=[])

    def take(self) -> list[str]:
        """What was reported since the last look."""
        heard = [_in_short(report) for report in self.heard]
        self.heard.clear()
        return heard


def _in_short(report: InventoryReport) -> str:
    if report.devices is None:
        return "life"
    listed = " ".join(device.address[5:7] for device in report.devices)
    if report.base_digest is None:
        return f"all: {listed}"
    return f"changed: {listed}; removed: {' '.join(address[5:7] for address in report.removed)}"


def has(*numbers: int, **facts: object) -> Inventory:
    """An inventory with devices on these buses."""
    return Inventory(
        [
            DeviceReport(
                address=f"0000:{number:02x}:00.0",
                dev_type="type-PCI",
                vendor_id="8086",
                product_id="1572",
                **facts,  # type: ignore[arg-type]
            )
            for number in numbers
        ],
        [],
    )


@pytest.fixture
def conductor() -> Conductor:
    return Conductor()


@pytest.fixture
def link(conductor: Conductor) -> ConductorLink:
    return ConductorLink(conductor, "h1", uuid4())  # type: ignore[arg-type]  # is like a client


@pytest.fixture
def known(link: ConductorLink, conductor: Conductor) -> Inventory:
    """An inventory that the conductor has accepted."""
    inventory = has(1, 2, 3)
    conductor.answers = [True]
    link.publish(inventory, in_full=True)
    conductor.heard.clear()
    return inventory


def test_the_first_report_has_all_devices_if_the_conductor_does_not_know_them(
    link: ConductorLink, conductor: Conductor
) -> None:
    conductor.answers = [True]
    assert not link.publish(has(1, 2), in_full=True)
    assert conductor.take() == ["life", "all: 01 02"]


def test_an_agent_that_starts_again_reports_nothing_that_the_conductor_knows(
    link: ConductorLink, conductor: Conductor
) -> None:
    assert not link.publish(has(1, 2), in_full=True)
    assert conductor.take() == ["life"]
    link.publish(has(1), in_full=True)
    assert conductor.take() == ["changed: ; removed: 02"]


def test_a_full_report_that_was_not_answered_may_have_arrived(
    link: ConductorLink, conductor: Conductor
) -> None:
    conductor.answers = [True, ServiceUnavailable("no answer")]
    with pytest.raises(ServiceUnavailable):
        link.publish(has(1, 2), in_full=True)
    link.publish(has(1, 2), in_full=True)
    assert conductor.take() == ["life", "all: 01 02", "life"]


@pytest.mark.usefixtures("known")
def test_the_next_report_says_what_has_changed(link: ConductorLink, conductor: Conductor) -> None:
    changed = has(2, numa_node=1).devices
    link.publish(Inventory([*has(1).devices, *changed, *has(4).devices], []), in_full=True)
    assert conductor.take() == ["changed: 02 04; removed: 03"]


def test_changes_name_the_report_that_they_apply_to(
    link: ConductorLink, conductor: Conductor, known: Inventory
) -> None:
    first, second = has(1, 2), has(1)
    link.publish(first, in_full=True)
    link.publish(second, in_full=True)
    assert [(report.base_digest, report.digest) for report in conductor.heard] == [
        (known.digest, first.digest),
        (first.digest, second.digest),
    ]


@pytest.mark.usefixtures("known")
def test_all_is_reported_if_the_conductor_cannot_use_the_changes(
    link: ConductorLink, conductor: Conductor
) -> None:
    conductor.answers = [True]
    assert not link.publish(has(1, 2), in_full=True)
    assert conductor.take() == ["changed: ; removed: 03", "all: 01 02"]
    link.publish(has(1), in_full=True)
    assert conductor.take() == ["changed: ; removed: 02"]


def test_all_is_reported_after_a_sign_of_life_that_the_conductor_does_not_know(
    link: ConductorLink, conductor: Conductor, known: Inventory
) -> None:
    link.doubt()
    conductor.answers = [True, True]
    assert link.publish(known, in_full=False)
    link.publish(known, in_full=True)
    assert conductor.take() == ["life", "life", "all: 01 02 03"]


@pytest.mark.usefixtures("known")
def test_an_older_conductor_gets_all(link: ConductorLink, conductor: Conductor) -> None:
    for inventory in (has(1, 2), has(1)):
        conductor.answers = [UnsupportedVersion("this conductor speaks version 1.0")]
        link.publish(inventory, in_full=True)
    assert conductor.take() == [
        *("changed: ; removed: 03", "all: 01 02"),
        *("changed: ; removed: 02", "all: 01"),
    ]


@pytest.mark.usefixtures("known")
def test_a_pin_to_an_older_conductor_sends_no_changes(link: ConductorLink, conductor: Conductor) -> None:
    conductor.pinned = True
    link.publish(has(1, 2), in_full=True)
    assert conductor.take() == ["all: 01 02"]


@pytest.mark.parametrize("error", [ServiceUnavailable("no answer"), HostOwnedByAnotherAgent("not you")])
@pytest.mark.usefixtures("known")
def test_after_an_error_the_changes_are_those_since_the_last_accepted_report(
    link: ConductorLink, conductor: Conductor, error: Exception
) -> None:
    conductor.answers = [error]
    with pytest.raises(type(error)):
        link.publish(has(1, 2), in_full=True)
    link.publish(has(1), in_full=True)
    assert conductor.take() == ["changed: ; removed: 03", "changed: ; removed: 02 03"]


class TestSignsOfLife:
    """An agent that is sure to be its host's shows life without waiting for an answer."""

    def test_after_an_answer_of_the_conductor_a_sign_of_life_is_not_answered(
        self, link: ConductorLink, conductor: Conductor, known: Inventory
    ) -> None:
        assert not link.publish(known, in_full=False)
        assert conductor.take() == []
        assert [(sign.host, sign.digest) for sign in conductor.signs] == [("h1", known.digest)]

    def test_the_conductor_is_called_when_its_last_answer_is_old(
        self,
        link: ConductorLink,
        conductor: Conductor,
        known: Inventory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        now = conductor_link.time.monotonic()
        monkeypatch.setattr(conductor_link.time, "monotonic", lambda: now + conductor_link.SURE_FOR + 1)
        link.publish(known, in_full=False)
        assert (conductor.take(), conductor.signs) == (["life"], [])
        link.publish(known, in_full=False)
        assert (conductor.take(), len(conductor.signs)) == ([], 1)

    def test_the_conductor_is_called_when_it_asks_for_that(
        self, link: ConductorLink, conductor: Conductor, known: Inventory
    ) -> None:
        link.doubt()
        link.publish(known, in_full=False)
        assert (conductor.take(), conductor.signs) == (["life"], [])

    @pytest.mark.parametrize("error", [ServiceUnavailable("nobody"), UnsupportedVersion("pinned")])
    def test_the_conductor_is_called_if_it_takes_no_signs_of_life(
        self, link: ConductorLink, conductor: Conductor, known: Inventory, error: Exception
    ) -> None:
        conductor.trouble = [error]
        link.publish(known, in_full=False)
        assert conductor.take() == ["life"]

    def test_the_question_for_holdings_makes_sure(
        self, link: ConductorLink, conductor: Conductor, known: Inventory
    ) -> None:
        link.doubt()
        link.holdings([])
        link.publish(known, in_full=False)
        assert (conductor.take(), len(conductor.signs)) == ([], 1)

    @pytest.mark.parametrize("error", [ServiceUnavailable("no answer"), HostOwnedByAnotherAgent("not you")])
    def test_an_error_makes_unsure(
        self, link: ConductorLink, conductor: Conductor, known: Inventory, error: Exception
    ) -> None:
        conductor.answers = [error]
        with pytest.raises(type(error)):
            link.holdings([])
        link.publish(known, in_full=False)
        assert (conductor.take(), conductor.signs) == (["life"], [])


class TestSize:
    def test_an_inventory_with_too_many_devices_is_not_reported(
        self, link: ConductorLink, conductor: Conductor
    ) -> None:
        one = has(1).devices[0]
        with pytest.raises(InventoryTooLarge, match=f"{MOST_DEVICES + 1} devices .* at most {MOST_DEVICES}"):
            link.publish(Inventory([one] * (MOST_DEVICES + 1), []), in_full=True)
        assert conductor.take() == []

    def test_an_inventory_that_is_too_long_is_not_reported(
        self, link: ConductorLink, conductor: Conductor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inventory = has(1, 2)
        monkeypatch.setattr(inventory_module, "LARGEST", 100)
        with pytest.raises(InventoryTooLarge, match="100 bytes"):
            link.publish(inventory, in_full=True)
        assert conductor.take() == []

    def test_an_inventory_that_grew_too_large_is_not_reported(
        self, link: ConductorLink, conductor: Conductor, known: Inventory
    ) -> None:
        with pytest.raises(InventoryTooLarge):
            link.publish(Inventory(known.devices * MOST_DEVICES, []), in_full=True)
        assert conductor.take() == []


DEVICE = StepDevice(address="0000:81:02.0", dev_type="type-VF", vendor_id="8086", product_id="154c")
ENDED = [
    (
        Step(claim_id=UUID(int=number), step=1, action="attach", instance_id=uuid4(), devices=[DEVICE]),
        Ending("done"),
    )
    for number in range(MOST_STEPS + 1)
]


class TestAnswers:
    @pytest.mark.parametrize(("number", "messages"), [(1, [1]), (3, [3]), (257, [256, 1])])
    def test_are_sent_in_few_messages(
        self, conductor: Conductor, link: ConductorLink, number: int, messages: list[int]
    ) -> None:
        link.cast_answers(ENDED[:number])
        assert [len(claims) for claims in conductor.answered] == messages
        assert [claim.int for claims in conductor.answered for claim in claims] == list(range(number))

    def test_are_sent_one_by_one_to_a_conductor_that_may_be_old(
        self, conductor: Conductor, link: ConductorLink
    ) -> None:
        conductor.pinned = True
        link.cast_answers(ENDED[:3])
        assert [len(claims) for claims in conductor.answered] == [1, 1, 1]
