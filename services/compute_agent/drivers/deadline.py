"""Ask what may never answer, and wait only so long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from portclaim.services.compute_agent.drivers.base import DriverError

T = TypeVar("T")


class NoAnswer(DriverError):
    """The time was over. The question may be answered, or take effect, at any moment after."""


class Deadline:
    """Puts each question in a thread of its own, which is left behind when ``timeout`` seconds are over.

    ``whom`` is asked, for the message.
    """

    def __init__(self, whom: str, timeout: float) -> None:
        self._whom = whom
        self._timeout = timeout
        self._late: Future[Any] | None = None

    def ask(self, question: Callable[[], T]) -> T:
        """Answer or raise what ``question`` does; raise :class:`NoAnswer` where it does neither in time."""
        return self._wait(self._put(question))

    def ask_one_at_a_time(self, question: Callable[[], T]) -> T:
        """Do not even ask, and raise :class:`NoAnswer`, while one that was asked so is late."""
        if self._late is not None and not self._late.done():
            raise NoAnswer(f"{self._whom} has not answered yet what it was asked before")
        answer = self._put(question)
        try:
            return self._wait(answer)
        except NoAnswer:
            self._late = answer
            raise

    def _put(self, question: Callable[[], T]) -> Future[T]:
        answer: Future[T] = Future()
        threading.Thread(target=_answer, args=(question, answer), name=self._whom, daemon=True).start()
        return answer

    def _wait(self, answer: Future[T]) -> T:
        try:
            return answer.result(self._timeout)
        except TimeoutError:
            if answer.done():  # it is the question's own
                return answer.result()
            raise NoAnswer(f"{self._whom} has not answered in {self._timeout:g} s") from None


def _answer(question: Callable[[], T], answer: Future[T]) -> None:
    try:
        answer.set_result(question())
    except BaseException as error:
        answer.set_exception(error)
