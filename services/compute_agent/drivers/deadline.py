"""Call functions that may never return, and wait for them only for a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from portclaim.services.compute_agent.drivers.base import DriverError

T = TypeVar("T")


class NoAnswer(DriverError):
    """The function did not return in time. It may still return, or take effect, later."""


class Deadline:
    """Runs each question in its own thread, and abandons the thread after ``timeout`` seconds.

    ``whom`` is who is asked, for messages.
    """

    def __init__(self, whom: str, timeout: float) -> None:
        self._whom = whom
        self._timeout = timeout
        self._late: Future[Any] | None = None

    def ask(self, question: Callable[[], T]) -> T:
        """Return or raise what ``question`` does. Raises :class:`NoAnswer` if it does neither in time."""
        return self._wait(self._put(question))

    def ask_one_at_a_time(self, question: Callable[[], T]) -> T:
        """The same, but raise :class:`NoAnswer` at once while an earlier question is unanswered."""
        if self._late is not None and not self._late.done():
            raise NoAnswer(f"{self._whom} has not answered an earlier question yet")
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
            if answer.done():  # the question itself raised it
                return answer.result()
            raise NoAnswer(f"{self._whom} did not answer in {self._timeout:g} s") from None


def _answer(question: Callable[[], T], answer: Future[T]) -> None:
    try:
        answer.set_result(question())
    except BaseException as error:
        answer.set_exception(error)
