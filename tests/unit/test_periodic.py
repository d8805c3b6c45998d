"""A thread that repeats its work: when its rounds begin."""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from portclaim.common.errors import ServiceUnavailable
from portclaim.common.periodic import Periodic
from tests.support.concurrency import LONG, wait_until

NEVER = 10 * LONG


class Rounds:
    """Work that notes when each round begins. ``answers``: what the first rounds answer."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.times: list[float] = []
        self._answers = list(answers)

    def work(self) -> bool:
        self.times.append(time.monotonic())
        answer = self._answers.pop(0) if self._answers else False
        if isinstance(answer, Exception):
            raise answer
        return answer

    def are(self, count: int) -> None:
        wait_until(lambda: len(self.times) >= count, f"{count} rounds")


Begin = Callable[..., Periodic]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts threads, and ends them after the test."""
    begun: list[Periodic] = []

    def begin(rounds: Rounds, pause: float, least_pause: float = 0.0) -> Periodic:
        begun.append(Periodic("test", rounds.work, pause, least_pause=least_pause))
        begun[-1].start()
        return begun[-1]

    yield begin
    for each in begun:
        each.end()


def test_rounds_come_at_regular_intervals(begin: Begin) -> None:
    rounds = Rounds()
    begin(rounds, pause=0.05)
    rounds.are(3)
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(rounds.times))


def test_a_round_starts_at_once_when_it_is_woken(begin: Begin) -> None:
    rounds = Rounds()
    begin(rounds, pause=NEVER).wake()
    rounds.are(1)


def test_rounds_go_on_while_there_is_more_work(begin: Begin) -> None:
    rounds = Rounds(True, True, False)
    begin(rounds, pause=NEVER, least_pause=NEVER).wake()
    rounds.are(3)


@pytest.mark.parametrize("error", [ServiceUnavailable("no broker"), ZeroDivisionError()])
def test_work_that_failed_is_tried_again_in_the_next_round(begin: Begin, error: Exception) -> None:
    rounds = Rounds(error)
    begin(rounds, pause=0.01)
    rounds.are(2)


def test_rounds_that_are_woken_keep_the_least_pause_and_no_wake_is_lost(begin: Begin) -> None:
    rounds = Rounds()
    thread = begin(rounds, pause=NEVER, least_pause=0.05)
    for count in range(1, 5):
        thread.wake()
        rounds.are(count)
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(rounds.times))


def test_regular_rounds_need_no_least_pause(begin: Begin) -> None:
    rounds = Rounds()
    thread = begin(rounds, pause=0.01, least_pause=NEVER)
    rounds.are(3)
    before = len(rounds.times)
    thread.wake()
    rounds.are(before + 1)


def test_the_end_does_not_wait_for_the_least_pause(begin: Begin) -> None:
    rounds = Rounds()
    thread = begin(rounds, pause=NEVER, least_pause=NEVER)
    thread.wake()
    rounds.are(1)
    thread.end()
    assert not thread.is_alive()
