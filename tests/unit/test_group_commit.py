"""What several threads ask for at the same time is done together."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portclaim.common.group_commit import GroupCommit
from tests.support.concurrency import LONG, at_once, meanwhile, wait_until


class Work:
    """Doubles numbers. While it is held up, it does not end; it fails at numbers below zero."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.groups.append(list(items))
        assert self.goes_on.wait(LONG)
        if min(items) < 0:
            raise ValueError(f"a number below zero: {list(items)}")
        return [2 * item for item in items]


@pytest.fixture
def work() -> Work:
    return Work()


def asked_while_busy(work: Work, commit: GroupCommit[int, int], *items: int) -> list[Future[int]]:
    """The results for these items, asked for one after the other while the work for 0 is under way."""
    work.goes_on.clear()
    meanwhile(lambda: commit(0))
    wait_until(lambda: work.groups, "the work for 0 has begun")
    results = []
    for number, item in enumerate(items, start=1):
        results.append(meanwhile(lambda item=item: commit(item)))
        wait_until(lambda number=number: len(commit._waiting) == number, "it waits")
    work.goes_on.set()
    return results


def test_a_single_caller_waits_for_nobody(work: Work) -> None:
    commit = GroupCommit(work, 8)
    assert [commit(1), commit(2)] == [2, 4]
    assert work.groups == [[1], [2]]


def test_what_is_asked_for_meanwhile_is_the_next_group_in_its_order(work: Work) -> None:
    results = asked_while_busy(work, GroupCommit(work, 8, patience=LONG), 3, 1, 2)
    assert [result.result(LONG) for result in results] == [6, 2, 4]
    assert work.groups == [[0], [3, 1, 2]]


def test_a_group_has_no_more_than_the_largest_number(work: Work) -> None:
    results = asked_while_busy(work, GroupCommit(work, 2, patience=LONG), 1, 2, 3, 4, 5)
    assert [result.result(LONG) for result in results] == [2, 4, 6, 8, 10]
    assert work.groups == [[0], [1, 2], [3, 4], [5]]


def test_a_group_has_only_what_is_like_its_first(work: Work) -> None:
    both_odd_or_even = GroupCommit(work, 8, lambda one, other: one % 2 == other % 2, patience=LONG)
    results = asked_while_busy(work, both_odd_or_even, 1, 2, 3, 4)
    assert [result.result(LONG) for result in results] == [2, 4, 6, 8]
    assert work.groups == [[0], [1, 3], [2, 4]]


def test_all_of_a_group_learn_that_its_work_failed_and_the_next_group_is_worked_on(work: Work) -> None:
    commit = GroupCommit(work, 2, patience=LONG)
    first, second, third = asked_while_busy(work, commit, 1, -2, 3)
    for failed in (first, second):
        with pytest.raises(ValueError, match="below zero"):
            failed.result(LONG)
    assert third.result(LONG) == 6
    assert commit(4) == 8


def test_who_has_waited_long_for_another_group_does_not_wait_for_it_any_more(work: Work) -> None:
    held_up, others = threading.Event(), []

    def work_that_waits_for_a_lock(items: Sequence[int]) -> list[int]:
        if 0 in items:
            assert held_up.wait(LONG)
        else:
            others.append(list(items))
        return [2 * item for item in items]

    commit = GroupCommit(work_that_waits_for_a_lock, 8, patience=0.001)
    zero = meanwhile(lambda: commit(0))
    wait_until(lambda: commit._is_busy, "the work for 0 has begun")
    assert [commit(1), commit(2)] == [2, 4]
    assert others == [[1], [2]]
    held_up.set()
    assert zero.result(LONG) == 0
    assert commit(3) == 6


@settings(max_examples=30, deadline=None)
@given(
    asked=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    largest=st.integers(1, 5),
    patience=st.sampled_from([0.0, 0.0005, LONG]),
)
def test_everybody_gets_the_result_of_their_own_item(asked: list[int], largest: int, patience: float) -> None:
    work = Work()
    commit = GroupCommit(work, largest, lambda one, other: one % 2 == other % 2, patience=patience)
    assert at_once([lambda item=item: commit(item) for item in asked]) == [2 * item for item in asked]
    assert sorted(item for group in work.groups for item in group) == sorted(asked)
    assert all(len(group) <= largest for group in work.groups)
    assert not commit._waiting
    assert not commit._is_busy
