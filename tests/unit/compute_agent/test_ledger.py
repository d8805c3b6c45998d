"""A step is done once, and never after a later one of its claim."""

import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.ledger import Ending, Ledger, Superseded

DONE = Ending("done")
FAILED = Ending("failed", "no such instance")
PREPARED = Ending("prepared")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "steps.sqlite")


def step(action: str, number: int, claim_id: UUID) -> Step:
    device = StepDevice(address="0000:01:00.0", dev_type="type-PF", vendor_id="8086", product_id="1572")
    return Step(claim_id=claim_id, step=number, action=action, instance_id=uuid4(), devices=[device])


def test_a_new_step_is_to_be_done(ledger: Ledger) -> None:
    assert ledger.begin(step("attach", 1, uuid4())) is None


def test_a_step_that_was_interrupted_is_to_be_done(ledger: Ledger) -> None:
    attach = step("attach", 1, uuid4())
    ledger.begin(attach)
    assert ledger.begin(attach) is None


@pytest.mark.parametrize("ending", [DONE, FAILED, PREPARED])
def test_a_repeated_attach_that_ended_gets_its_result_again(ledger: Ledger, ending: Ending) -> None:
    attach = step("attach", 1, uuid4())
    ledger.begin(attach)
    ledger.finish(attach, ending)
    assert ledger.begin(attach) == ending


def test_a_repeated_detach_that_failed_is_to_be_done(ledger: Ledger) -> None:
    detach = step("detach", 2, uuid4())
    ledger.begin(detach)
    ledger.finish(detach, FAILED)
    assert ledger.begin(detach) is None
    ledger.finish(detach, DONE)
    assert ledger.begin(detach) == DONE


def test_a_done_attach_can_be_repeated_for_a_lost_device_but_a_failed_one_cannot(ledger: Ledger) -> None:
    attach = step("attach", 1, uuid4())
    ledger.begin(attach)
    ledger.finish(attach, DONE)
    assert ledger.begin(attach, again=True) is None
    ledger.finish(attach, FAILED)
    assert ledger.begin(attach, again=True) == FAILED


def test_a_prepared_step_can_be_repeated_when_its_instance_may_have_come(ledger: Ledger) -> None:
    attach = step("attach", 1, uuid4())
    ledger.begin(attach)
    assert not ledger.is_prepared(attach)
    ledger.finish(attach, PREPARED)
    assert ledger.is_prepared(attach)
    assert ledger.begin(attach, again=True) is None


def test_a_ledger_of_release_0_2_0_is_taken_over(tmp_path: Path) -> None:
    attach, detach = step("attach", 1, uuid4()), step("detach", 2, uuid4())
    with closing(sqlite3.connect(tmp_path / "steps.sqlite")) as file:
        file.executescript("""
            CREATE TABLE steps (
                claim_id TEXT PRIMARY KEY, step INTEGER NOT NULL, action TEXT NOT NULL,
                outcome TEXT CHECK (outcome IN ('done', 'failed')),
                reason TEXT, changed_at INTEGER NOT NULL DEFAULT (unixepoch()));
            CREATE INDEX steps_changed_at ON steps (changed_at);
        """)
        insert = "INSERT INTO steps (claim_id, step, action, outcome, reason) VALUES (?, ?, ?, ?, ?)"
        file.execute(insert, (str(attach.claim_id), 1, "attach", "failed", "no such instance"))
        file.execute(insert, (str(detach.claim_id), 2, "detach", "done", None))
        file.commit()
    for _ in range(2):
        ledger = Ledger(tmp_path / "steps.sqlite")
        assert (ledger.begin(attach), ledger.begin(detach)) == (FAILED, DONE)
        new = step("attach", 1, uuid4())
        ledger.begin(new)
        ledger.finish(new, PREPARED)
        ledger.close()


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "interrupted"])
def test_a_step_is_dropped_once_a_later_one_began(ledger: Ledger, ended: bool) -> None:
    claim_id = uuid4()
    detach = step("detach", 2, claim_id)
    ledger.begin(detach)
    if ended:
        ledger.finish(detach, DONE)
    with pytest.raises(Superseded, match="step 1 is stale: it was sent before step 2"):
        ledger.begin(step("attach", 1, claim_id))
    with pytest.raises(Superseded):
        ledger.begin(step("attach", 1, claim_id), again=True)
    assert ledger.latest(claim_id) == 2


def test_a_late_result_of_an_earlier_step_does_not_count_for_the_later_one(ledger: Ledger) -> None:
    claim_id = uuid4()
    attach, detach = step("attach", 1, claim_id), step("detach", 2, claim_id)
    ledger.begin(attach)
    ledger.begin(detach)
    ledger.finish(attach, DONE)
    assert ledger.begin(detach) is None


def test_claims_do_not_affect_each_other(ledger: Ledger) -> None:
    one, other = uuid4(), uuid4()
    ledger.begin(step("detach", 2, one))
    assert ledger.begin(step("attach", 1, other)) is None
    assert (ledger.latest(one), ledger.latest(other), ledger.latest(uuid4())) == (2, 1, 0)


def test_claims_whose_attach_failed_are_known(ledger: Ledger) -> None:
    failed, done, kept = uuid4(), uuid4(), uuid4()
    for claim_id, action, ending in (
        (failed, "attach", FAILED),
        (done, "attach", DONE),
        (kept, "detach", FAILED),
    ):
        ledger.begin(step(action, 1, claim_id))
        ledger.finish(step(action, 1, claim_id), ending)
    assert ledger.not_attached() == {failed}


def test_the_ledger_survives_a_restart(ledger: Ledger, tmp_path: Path) -> None:
    attach = step("attach", 1, uuid4())
    ledger.begin(attach)
    ledger.finish(attach, DONE)
    ledger.close()
    assert Ledger(tmp_path / "steps.sqlite").begin(attach) == DONE


def test_only_claims_that_ended_long_ago_are_deleted(ledger: Ledger, tmp_path: Path) -> None:
    ended, attached, recent = (step(action, 1, uuid4()) for action in ("detach", "attach", "detach"))
    for each in (ended, attached, recent):
        ledger.begin(each)
        ledger.finish(each, DONE)
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "steps.sqlite")) as file:
        long_ago = "UPDATE steps SET changed_at = changed_at - 91 * 86400 WHERE claim_id IN (?, ?)"
        file.execute(long_ago, (str(ended.claim_id), str(attached.claim_id)))
        file.commit()
    again = Ledger(tmp_path / "steps.sqlite")
    assert [again.latest(each.claim_id) for each in (ended, attached, recent)] == [0, 1, 1]
