"""Interrupts a piece of code, as Ctrl-C does, at each of its instructions in turn."""

import sys
from collections.abc import Callable
from itertools import count
from types import CodeType, FrameType, ModuleType


class Interrupted(BaseException):
    """Stands for the exception that a signal handler raises, at any place of the program."""


def at_every_moment(run: Callable[[], object], of: ModuleType) -> int:
    """Call ``run`` again and again, each time with :class:`Interrupted` raised at the next instruction of
    the module ``of``, until it runs to its end. Return how often it was interrupted."""
    for moment in count():
        try:
            _interrupt(run, of, moment)
        except Interrupted:
            continue
        return moment
    raise AssertionError


def _interrupt(run: Callable[[], object], of: ModuleType, moment: int) -> None:
    left = moment

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal left
        if not _is_of(frame.f_code, of):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            left -= 1
            if left < 0:
                raise Interrupted  # which also ends the tracing
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # in this thread only, because only one thread gets signals
    try:
        run()
    finally:
        sys.settrace(before)


def _is_of(code: CodeType, module: ModuleType) -> bool:
    return code.co_filename == module.__file__
