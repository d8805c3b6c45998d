"""Ctrl-C at every moment of a piece of code, one moment after the other."""

import sys
from collections.abc import Callable
from itertools import count
from types import CodeType, FrameType, ModuleType


class Interrupted(BaseException):
    """What the handler of a signal raises, wherever the program is."""


def at_every_moment(run: Callable[[], object], of: ModuleType) -> int:
    """Call ``run`` again and again, each time with :class:`Interrupted` raised at the next instruction of
    the module ``of``, until it comes through undisturbed; answer how often that was not so."""
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
    sys.settrace(trace)  # of this thread alone: no other gets signals
    try:
        run()
    finally:
        sys.settrace(before)


def _is_of(code: CodeType, module: ModuleType) -> bool:
    return code.co_filename == module.__file__
